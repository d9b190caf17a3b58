"""Soups of checkpoints and adapters: recipes, methods, held-out losses and landscapes."""
