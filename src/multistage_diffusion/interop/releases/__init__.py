"""Checkpoints of the authors' programs."""
