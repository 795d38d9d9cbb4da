"""Gradients and weights that several processes share."""
