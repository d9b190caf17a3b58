"""What training on a set of pairs would trip over, found before any weights load."""
