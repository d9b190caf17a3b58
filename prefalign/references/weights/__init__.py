"""Weights on disk: read, checked, compared, averaged and written without loading a model."""
