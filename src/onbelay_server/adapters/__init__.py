"""The ports' implementations, each named by its technique."""
