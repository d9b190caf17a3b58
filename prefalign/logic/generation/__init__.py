"""Losses from specifications: counted, listed, sampled and ranked."""
