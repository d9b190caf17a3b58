"""Weighted model counts as polynomials, and their signs on the unit cube."""
