"""What is logged beside TRL's metrics."""
