"""The reference's log-probabilities on disk."""
