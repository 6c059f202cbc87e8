"""Fan-out: watching is history plus a position, and a hint that there is more."""
