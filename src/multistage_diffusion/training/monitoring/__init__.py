"""What is recorded of a run while it trains."""
