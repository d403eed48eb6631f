"""Run the command line interface as `python -m gateway`."""

from gateway.cli import main

if __name__ == "__main__":  # a spawned child process imports this module under another name
    raise SystemExit(main())
