"""From arguments to a policy and its data."""
