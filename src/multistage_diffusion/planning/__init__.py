"""The price of a run before it begins.

Multiply-accumulates, memory, time, and widths under a budget.
"""
