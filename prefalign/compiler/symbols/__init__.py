"""The symbols that stand for log-probabilities and lengths, and numbers in place of them."""
