"""The gRPC surface: the edge, the services and the converters between wire and domain."""
