"""The price of a run before it begins: multiply-accumulates, memory, time, and widths under a
budget.
"""
