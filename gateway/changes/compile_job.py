"""Compile a configuration in a child process: a job in, a pickled outcome out."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn

from gateway.changes.pickling import ConfigNotPortable, pack, unpack
from gateway.config.problems import ConfigRejected, Problem, dotted
from gateway.config.source_text import MAX_BYTES, MISSING, Reading, SourceText, digest, read_files
from gateway.model.config_version import ConfigVersion
from providers.value import Value, replace

if TYPE_CHECKING:
    from gateway.config.real_deployment import RealDeployment


_SMALL = b"""
version: 1
location: {unknown: all}
regions: {all: {territories: ["*"], boundary: ["*"]}}
assistants: {a: {routes: {all: [d]}}}
deployments: {d: {provider: openai-compatible, model: m, endpoint: "http://127.0.0.1/v1", stores: any, processes: any}}
"""


class CompiledState(Value, frozen=True):
    """A config version with the source that it was compiled from, and its warnings without their positions."""

    config: ConfigVersion
    written: SourceText | None
    warnings: tuple[str, ...] = ()


def distinct_warnings(problems: Iterable[Problem]) -> tuple[str, ...]:
    """Return the distinct warnings without positions, so that a warning that only moved is not reported as new."""
    warnings = (f"{dotted(it.path)}: {it.message}" for it in problems if it.severity == "warning")
    return tuple(dict.fromkeys(warnings))


@dataclass(frozen=True, slots=True)
class CompileJob:
    """A configuration to compile."""

    path: str
    demo: bool = False
    demo_territory: str | None = None
    """The territory of callers whom no signal locates, if this is a demo."""
    simulators: Mapping[tuple[str, str], str] | None = None
    """The origin of each simulated site, once they run."""
    real: RealDeployment | None = None
    text: bytes | None = field(default=None, repr=False)
    """Compiled in place of the file's content. Relative paths are still resolved next to the file, and the file is
    still watched. `name` is its name in problems."""
    name: str = ""
    catalogues: str = field(default="", repr=False)
    """The catalogue files of `text` as the history has them. Empty to read the files."""
    secrets: bool = True
    """Whether secrets are looked up. A version without them can be compared but not served."""
    written: bool = False
    """Whether the outcome includes the source."""
    simulated: bool = False
    """Whether every deployment is put at a simulator (`gateway serve --simulated`)."""

    def problem(self, reason: str) -> Problem:
        """Return a problem of the file as a whole, or of the text that replaces it."""
        return Problem(self.name or self.path, 0, 0, (), reason)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a compile."""

    problems: tuple[Problem, ...]
    files: Reading
    at_rest: bool = True
    """Whether none of the files changed during the compile."""
    packed: bytes | None = field(default=None, repr=False)
    """The pickled version with its secrets. None if the problems include an error."""
    written: SourceText | None = None
    """The source, if there is a version and the job asked for it."""
    is_judged: bool = True
    """Whether the compile ran. If it did not, the problems are not mistakes in the files."""
    waited_s: float = 0.0
    """The time in which the compile had no core or no disk."""


def state_of(outcome: Outcome) -> CompiledState | None:
    """Return the state that a compile made, or None if it failed."""
    if outcome.packed is None:
        return None
    return CompiledState(unpack(outcome.packed), outcome.written, distinct_warnings(outcome.problems))


def compile_here(job: CompileJob, environ: Mapping[str, str]) -> Outcome:
    """Compile in this process and return the outcome."""
    from gateway.config.loading import parse_document, read_config
    from gateway.config.real_deployment import add_real_deployment
    from gateway.features.configuration import compile_config
    from providers.registry import load_registry

    files: Reading = {job.path: MISSING}
    secrets: bool | Literal["own"] = "own" if job.simulated and job.secrets else job.secrets
    try:
        if job.text is None:
            data = read_config(job.path, waits=False)
            # A file that is too large has no digest. Read it as the watch does, or it would never be at rest.
            files = {job.path: digest(data)} if len(data) <= MAX_BYTES else read_files([job.path])
            document = parse_document(data, job.path, environ, secrets=secrets)
            files = document.files
        else:
            files = read_files([job.path])
            document = parse_document(
                job.text, job.name, environ, relative_to=job.path, stored_catalogues=job.catalogues, secrets=secrets
            )
            files = {**document.files, **files}
            del files[job.name]
        registry = load_registry()
        if job.real is not None:
            document = add_real_deployment(document, job.real, registry, environ)
        compiled = compile_config(
            document, registry=registry, simulators=job.simulators, demo=job.demo,
            demo_territory=job.demo_territory, simulated=job.simulated,
        )  # fmt: skip
        packed = pack(compiled.config)
    except ConfigRejected as error:
        return Outcome(error.problems, files, read_files(files) == files)
    except ConfigNotPortable as error:
        return Outcome((job.problem(str(error)),), files)
    written = compiled.written if job.written else None
    return Outcome(compiled.warnings, files, read_files(files) == files, packed, written)


def main() -> NoReturn:
    """Read one job from standard input, write its outcome to standard output, and end the process."""
    # The process ends after one outcome, so memory need not be freed. Garbage collection would take 7 % of the time.
    gc.disable()
    # Modules are imported, and sections and the data of territories built, at their first use: so it is now.
    compile_here(CompileJob("", text=_SMALL), {})
    job: CompileJob = pickle.loads(sys.stdin.buffer.read())  # noqa: S301  # written by the parent process
    began_s, used_s = time.monotonic(), time.process_time()
    outcome = compile_here(job, os.environ)
    waited_s = max(0.0, time.monotonic() - began_s - (time.process_time() - used_s))
    sys.stdout.buffer.write(pickle.dumps(replace(outcome, waited_s=waited_s), pickle.HIGHEST_PROTOCOL))
    sys.stdout.flush()
    os._exit(0)  # freeing all modules takes longer than most compiles, and the parent waits for the end


if __name__ == "__main__":
    # Import the module under its own name, so that the reader of the pickle finds its classes.
    from gateway.changes.compile_job import main as run_job

    run_job()
