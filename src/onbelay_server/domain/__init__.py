"""What Onbelay is about, in plain values and pure functions: no clock, no I/O, no await."""
