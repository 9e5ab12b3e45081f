"""Training a bundle in stages: contrastive encoders, contrastive Q-Formers, language."""
