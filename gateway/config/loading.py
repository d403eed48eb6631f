"""Read a configuration file, and the files that it names, once, into one `Document`."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from gateway.config.problems import ConfigRejected, KeyPath, Problem
from gateway.config.secret_references import Resolution, file_of, references_in, resolve
from gateway.config.source_text import MAX_BYTES, MISSING, Reading, Written, digest, read_files
from gateway.config.validation import Findings
from gateway.config.yaml_document import Source, parse_yaml
from gateway.files import open_file, read_file_or_pipe

_MODELS: KeyPath = ("catalogue", "models")


_MOST_FILES = 100


@dataclass(frozen=True, slots=True)
class Catalogues:
    """What is in the files. unread: where the config names one that can't be read, and why; texts: what is wrong with
    those that are no YAML. files: the digest of each, by its path."""

    sources: tuple[Source, ...] = ()
    unread: tuple[tuple[KeyPath, str], ...] = ()
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
    unread: list[tuple[KeyPath, str]] = []
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


def _named(values: dict[str, object]) -> Iterator[tuple[KeyPath, str]]:
    """The names that are of the right shape; the schema tells of the others."""
    section = values.get("catalogue")
    models = section.get("models") if isinstance(section, dict) else None
    names = models[:_MOST_FILES] if isinstance(models, list) else [models]
    for index, name in enumerate(names):
        if isinstance(name, str) and name:
            yield (*_MODELS, index), name


_MAX_KEY_SET_BYTES = 256 * 1024


_REFERENCE = re.compile(r"\$\{file:(/[^{}\0]+)\}")


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """What a file was found to be. problem: why it can't be used now; age_s: of a database, by its own date."""

    problem: str = ""
    age_s: float = 0.0


def key_file(jwks: str) -> str | None:
    """The path that the text names, written plainly or as `${file:/path}`; None if it is no whole path."""
    match = _REFERENCE.fullmatch(jwks)
    path = match[1] if match else jwks
    return path if FilePath(path).is_absolute() and "\0" not in path else None


def check_files(values: Mapping[str, object]) -> dict[str, CheckedFiles]:
    """What is found at each path of `location.geoip` and `location.claim`."""
    location = values.get("location")
    location = location if isinstance(location, dict) else {}
    geoip, claim = location.get("geoip"), location.get("claim")
    looks: dict[str, CheckedFiles] = {}
    database = geoip.get("path") if isinstance(geoip, dict) else None
    if isinstance(database, str) and key_file(database):
        looks[database] = _look_at_database(database)
    jwks = claim.get("jwks") if isinstance(claim, dict) else None
    if isinstance(jwks, str) and (path := key_file(jwks)):
        looks[path] = _look_at_keys(path)
    return looks


def _look_at_database(path: str) -> CheckedFiles:
    from gateway.geoip import GeoIpError, read_geoip  # not imported by those who have no database

    try:
        return CheckedFiles(age_s=time.time() - read_geoip(path).built_at)
    except GeoIpError as error:
        return CheckedFiles(str(error))


def _look_at_keys(path: str) -> CheckedFiles:
    try:
        with open_file(path) as file:
            document = json.loads(file.read(_MAX_KEY_SET_BYTES))
    except OSError as error:
        return CheckedFiles(f"can't be read ({error.strerror})")
    except (ValueError, RecursionError):
        return CheckedFiles("is no JSON, or too large")
    is_set = isinstance(document, dict) and isinstance(document.get("keys"), list) and document["keys"]
    return CheckedFiles() if is_set else CheckedFiles("is no key set: it has no list `keys`")


@dataclass(frozen=True, slots=True)
class Document:
    """One config as it was written.

    version: the first 12 hex digits of its content hash, which counts the catalogue files too. written: what was read.
    references: what every `${…}` holds, by its text.
    looks: what was found in the files of `location`'s signals, by path; none where secrets aren't looked up.
    catalogues: the operator's own catalogue files.
    files: the digest of every file that was read, by its path.
    read_at_s: when (Unix time); what ends with time is judged by it.
    """

    source: Source
    version: str
    references: Mapping[str, Resolution]
    looks: Mapping[str, CheckedFiles] = field(default_factory=dict)
    catalogues: Catalogues = field(default_factory=Catalogues)
    files: Reading = field(default_factory=dict)
    read_at_s: float = field(default_factory=time.time)
    written: Written | None = None


def load_document(
    path: FilePath | str,
    environ: Mapping[str, str],
    *,
    secrets: bool = True,
    clock: Callable[[], float] = time.time,
) -> Document:
    """The document in a file; raises ConfigRejected where no values can be read from it.

    Without `secrets` no reference is resolved, and each counts as if it held something: fit to check, not to serve.
    """
    return parse_document(read_config(path), str(path), environ, secrets=secrets, clock=clock)


def read_config(path: FilePath | str, *, waits: bool = True) -> bytes:
    """The bytes of a config file, or the first of too many; raises ConfigRejected.

    waits: whether it may be a pipe too, that somebody writes to.
    """
    try:
        if waits:
            return read_file_or_pipe(path, MAX_BYTES + 1)
        with open_file(path) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        hint = "`gateway init` writes one to start from" if isinstance(error, FileNotFoundError) else ""
        problem = Problem(str(path), 0, 0, (), f"the file can't be read ({error.strerror})", hint)
        raise ConfigRejected([problem]) from None


def parse_document(
    data: bytes,
    file: str,
    environ: Mapping[str, str],
    *,
    beside: str | None = None,
    secrets: bool = True,
    clock: Callable[[], float] = time.time,
) -> Document:
    """The document in these bytes; `file` is what problems call it. See `load_document`.

    beside: the file that relative names in it start from, where `file` is none, as of a version of the history.
    """
    source = parse_yaml(data, file)
    held = environ if secrets else None
    texts = set(references_in(source.values))
    # Read before they are resolved: what changes between the two is then seen as a change, and not missed.
    named = read_files(filter(None, map(file_of, texts))) if secrets else {}
    references = {text: resolve(text, held) for text in texts}
    looks = check_files(source.values) if secrets else {}
    catalogues = read_catalogues(source.values, beside or file)
    files = {file: digest(data), **named, **catalogues.files}
    hashed = [source.values, catalogues.values] if catalogues.files else source.values
    written = Written(data, _content_hash(hashed), source.values)
    return Document(source, written.version, references, looks, catalogues, files, clock(), written)


def _content_hash(values: object) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
