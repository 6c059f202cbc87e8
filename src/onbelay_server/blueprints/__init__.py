"""Agents that ship with the service. They run in a child process and know nothing of the server."""
