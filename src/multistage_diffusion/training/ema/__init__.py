"""Averages of the weights, during training and after it."""
