"""The command line of the gateway.

The parsers are imported when `main` runs, so that importing this package costs nothing.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status of the process."""
    from gateway.cli.arguments import run_command

    return run_command(arguments)
