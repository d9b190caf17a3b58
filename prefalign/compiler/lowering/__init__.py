"""From logic to losses: structures and links become torch code."""
