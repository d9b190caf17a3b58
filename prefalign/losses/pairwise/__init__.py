"""The losses of a pair, each a closed form."""
