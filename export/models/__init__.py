"""The models of our own, in PyTorch: the encoder with its heads, the lite model, and their weights."""
