"""Batches by a budget of tokens, and the weights of their rows."""
