"""The Onbelay service: durable agent runs behind gRPC."""
