"""The losses with names, and what is looked up by name."""
