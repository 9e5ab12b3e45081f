"""Features of a window -> a few tokens for the language model. One file per adapter."""
