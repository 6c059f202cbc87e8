"""What `onbelay bench` measures, and how. Nothing of the service imports this package.

Servers and clients are processes of their own; this process starts them and counts.
"""
