"""The command line: one module a noun, all of it a client of the service's own RPCs."""
