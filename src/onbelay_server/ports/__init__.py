"""What the application needs from outside, as Protocols whose docstrings are the contracts."""
