"""The files that `catalogue` names: read once, while the config is loaded, and watched from then on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from gateway.config.findings import Findings
from gateway.config.problems import ConfigRejected, Path, Problem
from gateway.config.watch import MAX_BYTES, MISSING, Reading, digest, read_files
from gateway.config.yaml_source import parse_yaml
from gateway.config.yaml_tree import Source
from gateway.files import open_file

__all__ = ["Catalogues", "read_catalogues"]

_MODELS: Path = ("catalogue", "models")
_MOST_FILES = 100


@dataclass(frozen=True, slots=True)
class Catalogues:
    """What is in the files. unread: where the config names one that can't be read, and why; texts: what is wrong with
    those that are no YAML. files: the digest of each, by its path."""

    sources: tuple[Source, ...] = ()
    unread: tuple[tuple[Path, str], ...] = ()
    texts: tuple[Problem, ...] = ()
    files: Reading = field(default_factory=dict)

    @property
    def values(self) -> list[dict[str, object]]:
        """The values of the files, in order."""
        return [source.values for source in self.sources]

    def problems(self, findings: Findings) -> Iterator[Problem]:
        """The mistakes of the texts; what can't be read is added to the findings of the config that names it."""
        for path, why in self.unread:
            findings.error(path, why)
        yield from self.texts


def read_catalogues(values: dict[str, object], config: str) -> Catalogues:
    """The files that a config's values name, relative to the config's own place."""
    sources: list[Source] = []
    unread: list[tuple[Path, str]] = []
    texts: list[Problem] = []
    files: dict[str, str] = {}
    for place, name in _named(values):
        path = str(FilePath(config).parent / name)
        if path in files:
            unread.append((place, "is named twice"))
            continue
        files[path] = MISSING
        try:
            with open_file(path) as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no file can have that name"
            unread.append((place, f"the file {path} can't be read ({reason})"))
            continue
        # It must read as the watch reads it, or it would never be at rest.
        files[path] = digest(data) if len(data) <= MAX_BYTES else read_files([path])[path]
        try:
            sources.append(parse_yaml(data, path))
        except ConfigRejected as error:
            texts += error.problems
    return Catalogues(tuple(sources), tuple(unread), tuple(texts), files)


def _named(values: dict[str, object]) -> Iterator[tuple[Path, str]]:
    """The names that are of the right shape; the schema tells of the others."""
    section = values.get("catalogue")
    models = section.get("models") if isinstance(section, dict) else None
    names = models[:_MOST_FILES] if isinstance(models, list) else [models]
    for index, name in enumerate(names):
        if isinstance(name, str) and name:
            yield (*_MODELS, index), name
