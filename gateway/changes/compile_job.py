"""Compile a configuration in a child process: a job in, a pickled outcome out."""

from __future__ import annotations

import gc
import os
import pickle
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.changes.pickling import TableNotPortable, pack
from gateway.config.problems import ConfigRejected, Problem, dotted
from gateway.config.source_text import Reading, Written
from gateway.model.config_version import ConfigVersion


@dataclass(frozen=True, slots=True)
class CompiledState:
    """A table with what it was compiled from, and the warnings of that, without their places."""

    table: ConfigVersion
    written: Written | None
    warnings: tuple[str, ...] = ()


def told_once(problems: Iterable[Problem]) -> tuple[str, ...]:
    """The warnings without their lines, so that one that has only moved is no news."""
    found = (f"{dotted(it.path)}: {it.message}" for it in problems if it.severity == "warning")
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class CompileJob:
    """What to compile. simulators: the origin of each simulated site, if this is a demo.

    text: in place of what stands in the file, beside which it looks for others all the same, and which is watched all
    the same. name: what problems call it then.
    secrets: whether they are looked up; a table without them is fit to compare, not to serve. written: whether the
    outcome is to have what was compiled, too.
    """

    path: str
    demo: bool = False
    simulators: Mapping[tuple[str, str], str] | None = None
    text: bytes | None = field(default=None, repr=False)
    name: str = ""
    secrets: bool = True
    written: bool = False

    def problem(self, reason: str) -> Problem:
        """Why it can't be active: of the file as a whole, or of what stands in for it."""
        return Problem(self.name or self.path, 0, 0, (), reason)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. table: packed, with its secrets; None where the problems have a mistake among them.

    files: what stood in each file that was read. at_rest: whether none of them changed in the meantime.
    written: what was compiled, if there is a table and that was asked for. is_judged: whether it was compiled at all,
    so that the problems are what the files have to be mended for.
    """

    problems: tuple[Problem, ...]
    files: Reading
    at_rest: bool = True
    table: bytes | None = field(default=None, repr=False)
    written: Written | None = None
    is_judged: bool = True


def compile_here(order: CompileJob, environ: Mapping[str, str]) -> Outcome:
    """The outcome of a compile in this process."""
    from gateway.config.compile import compile_config
    from gateway.config.loading import parse_document, read_config
    from gateway.config.source_text import MAX_BYTES, MISSING, digest, read_files
    from providers.registry import load_registry

    files: Reading = {order.path: MISSING}
    try:
        if order.text is None:
            data = read_config(order.path, waits=False)
            # What is too large has no digest: it must read as the watch reads it, or it would never be at rest.
            files = {order.path: digest(data)} if len(data) <= MAX_BYTES else read_files([order.path])
            document = parse_document(data, order.path, environ, secrets=order.secrets)
            files = document.files
        else:
            files = read_files([order.path])
            document = parse_document(order.text, order.name, environ, beside=order.path, secrets=order.secrets)
            files = {**document.files, **files}
            del files[order.name]
        compiled = compile_config(document, registry=load_registry(), simulators=order.simulators, demo=order.demo)
        packed = pack(compiled.table)
    except ConfigRejected as error:
        return Outcome(error.problems, files, read_files(files) == files)
    except TableNotPortable as error:
        return Outcome((order.problem(str(error)),), files)
    return Outcome(
        compiled.warnings, files, read_files(files) == files, packed, compiled.written if order.written else None
    )


def main() -> None:
    """One order, one outcome. All that is needed for it is there before the order comes."""
    # It ends with its one outcome and holds what it makes until then: to look for garbage is a fifteenth of its time.
    gc.disable()
    from gateway.config.compile import compile_config  # noqa: F401  # loaded ahead of the order
    from gateway.config.loading import load_document  # noqa: F401  # likewise
    from providers.registry import load_registry

    load_registry()
    order: CompileJob = pickle.loads(sys.stdin.buffer.read())  # noqa: S301  # our parent wrote it
    sys.stdout.buffer.write(pickle.dumps(compile_here(order, os.environ), pickle.HIGHEST_PROTOCOL))


if __name__ == "__main__":
    # Under its own name, so that what is pickled here can be found by who reads it.
    from gateway.changes.compile_job import main as run_job

    run_job()
