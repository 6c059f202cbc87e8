"""`python -m onbelay_server` is the command `onbelay`."""

from __future__ import annotations

from onbelay_server.cli.application import main

if __name__ == "__main__":
    main()
