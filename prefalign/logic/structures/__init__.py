"""Preference structures, rules with links, and preferences over K answers."""
