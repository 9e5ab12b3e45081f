"""The language side: tokenizer, prompt layout, the causal LM, and the mind that answers."""
