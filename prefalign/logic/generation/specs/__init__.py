"""Specifications: what a structure must satisfy, as objects, text and YAML."""
