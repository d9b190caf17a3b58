"""Texts generated while training: self-play, winners alone, RPO's baseline."""
