"""Formulas as written: parsed, printed, shortened and shown as truth tables."""
