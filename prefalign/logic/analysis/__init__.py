"""What a loss does: its limits, its behaviour in words, and the page that explains it."""
