"""`python -m gateway`: the command, where its script is not on the path."""

from gateway.cli import main

if __name__ == "__main__":  # a child process that is spawned imports it under another name
    raise SystemExit(main())
