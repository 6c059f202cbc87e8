"""The HTTP port: health for container platforms; it forwards and decides nothing."""
