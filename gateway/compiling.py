"""An order -> what came of its compile. Run as a program, it is the child that `compiler` starts.

It imports no more than it needs: how soon a change takes effect is, for the most part, how long this takes to start.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.config.problems import ConfigRejected, Problem
from gateway.config.watch import Reading
from gateway.packing import TableNotPortable, pack

__all__ = ["Order", "Outcome", "compile_here", "main"]


@dataclass(frozen=True, slots=True)
class Order:
    """What to compile. simulators: the origin of each simulated site, if this is a demo."""

    path: str
    demo: bool = False
    simulators: Mapping[tuple[str, str], str] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. table: packed, with its secrets; None where the problems have a mistake among them.

    files: what stood in each file that was read. at_rest: whether none of them changed in the meantime.
    """

    problems: tuple[Problem, ...]
    files: Reading
    at_rest: bool = True
    table: bytes | None = field(default=None, repr=False)


def compile_here(order: Order, environ: Mapping[str, str]) -> Outcome:
    """The outcome of a compile in this process."""
    from gateway.config.compile import compile_config
    from gateway.config.load import parse_document, read_config
    from gateway.config.watch import MISSING, digest, read_files
    from providers.registry import load_registry

    files: Reading = {order.path: MISSING}
    try:
        data = read_config(order.path)
        files = {order.path: digest(data)}
        document = parse_document(data, order.path, environ)
        files = document.reading
        compiled = compile_config(document, registry=load_registry(), simulators=order.simulators, demo=order.demo)
        packed = pack(compiled.table)
    except ConfigRejected as error:
        return Outcome(error.problems, files, read_files(files) == files)
    except TableNotPortable as error:
        return Outcome((Problem(order.path, 0, 0, (), str(error)),), files)
    return Outcome(compiled.warnings, files, read_files(files) == files, packed)


def main() -> None:
    """One order, one outcome."""
    order: Order = pickle.loads(sys.stdin.buffer.read())  # noqa: S301  # our parent wrote it
    sys.stdout.buffer.write(pickle.dumps(compile_here(order, os.environ), pickle.HIGHEST_PROTOCOL))


if __name__ == "__main__":
    # Under its own name, so that what is pickled here can be found by who reads it.
    from gateway.compiling import main as compile_one

    compile_one()
