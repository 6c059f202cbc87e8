"""What stands between an agent and its effects."""
