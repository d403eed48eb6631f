"""A config file -> a document: its values, the place of each, its content hash, and what its references hold.

All reading of files, environment and clock is done here, so that compiling is pure.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from gateway.config.catalogue_files import Catalogues, read_catalogues
from gateway.config.files import FileLook, look_at_files
from gateway.config.problems import ConfigRejected, Problem
from gateway.config.references import Resolution, file_of, references_in, resolve
from gateway.config.watch import MAX_BYTES, Reading, digest, read_files
from gateway.config.written import Written
from gateway.config.yaml_source import parse_yaml
from gateway.config.yaml_tree import Source
from gateway.files import open_file, read_given

__all__ = ["Document", "load_document", "parse_document", "read_config"]


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
    looks: Mapping[str, FileLook] = field(default_factory=dict)
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
            return read_given(path, MAX_BYTES + 1)
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
    looks = look_at_files(source.values) if secrets else {}
    catalogues = read_catalogues(source.values, beside or file)
    files = {file: digest(data), **named, **catalogues.files}
    hashed = [source.values, catalogues.values] if catalogues.files else source.values
    written = Written(data, _content_hash(hashed), source.values)
    return Document(source, written.version, references, looks, catalogues, files, clock(), written)


def _content_hash(values: object) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
