"""`chatkit-mint doctor`: try everything that a running service needs, and say what stands in the way."""
