"""What happens to characters before a model sees them: normalisation, tokenizers, and noise to train on."""
