"""Checkpoints: which are whole, what they belong to, and the last good one."""
