"""Core loss equations: parsed, brought into a ratio, and read off at the corners of the cube."""
