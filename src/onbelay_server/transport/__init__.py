"""How callers reach the use cases."""
