"""Where credentials and the server's own secrets are kept."""
