"""Part of prefalign."""
