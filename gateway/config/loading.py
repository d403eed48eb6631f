"""Read a configuration file and the files that it names into one `Document`. Each file is read once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Literal

from gateway.config.problems import ConfigRejected, KeyPath, Problem
from gateway.config.schema.sign_in import environment_of
from gateway.config.secret_references import Resolution, file_of, references_in, resolve
from gateway.config.secrets_file import SecretsFile, read_secrets_file
from gateway.config.source_text import MAX_BYTES, MISSING, Reading, SourceText, digest, read_files
from gateway.config.yaml_document import Source, parse_yaml
from gateway.files import open_file, read_file_or_pipe
from gateway.policy.location import SIGNALS
from gateway.policy.location.signal import FileState, absolute_path
from providers.json_values import as_map, read_list, read_map

_MODELS: KeyPath = ("catalogue", "models")

_UNREAD = ("deployments", "exporters", "stores", "usage")
"""The sections whose secrets a rehearsal does not read: none of what they name is called."""
_MAX_FILES = 100
_MAX_KEY_SET_BYTES = 256 * 1024
_MAX_TERM_BYTES = 8 << 20
_MAX_PEM_BYTES = 1024 * 1024
TLS_KEYS = ("ca", "client_certificate", "client_key")
"""The keys of `tls` that name a file."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file that the configuration names. `problem`: why it cannot be used, or empty."""

    path: str
    digest: str = MISSING
    text: str = field(default="", repr=False)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Catalogues:
    """The operator's catalogue files that could be read, and why the others could not."""

    sources: tuple[Source, ...] = ()
    unread: tuple[tuple[KeyPath, str], ...] = ()
    """The key that names each of the others, and the reason."""
    texts: tuple[Problem, ...] = ()
    """The problems of files that are not valid YAML."""
    files: Reading = field(default_factory=dict)
    """The digest of each file by its path."""

    @property
    def values(self) -> list[dict[str, object]]:
        """The values of the files, in order."""
        return [source.values for source in self.sources]


def stored_files(stored: str) -> tuple[list[dict[str, object]] | None, list[str]]:
    """Return the catalogue files (None without them) and the digests of the files of terms, as a version of the history
    has them (`SourceText.catalogues`).
    """
    found = json.loads(stored) if stored else None
    return (found["catalogues"], found["terms"]) if isinstance(found, dict) else (found, [])


def _stored_catalogues(values: Sequence[dict[str, object]], name: str) -> Catalogues:
    """Return the catalogue files of a version of the history. JSON is YAML too."""
    sources = (parse_yaml(json.dumps(each).encode(), f"the catalogue of {name}") for each in values)
    return Catalogues(tuple(sources), files={})


def read_catalogues(values: dict[str, object], config: str) -> Catalogues:
    """Read the catalogue files that the values name. Paths are relative to the file `config`."""
    sources: list[Source] = []
    unread: list[tuple[KeyPath, str]] = []
    texts: list[Problem] = []
    files: dict[str, str] = {}
    for key_path, name in _catalogue_names(values):
        path = str(FilePath(config).parent / name)
        if path in files:
            unread.append((key_path, "is listed twice"))
            continue
        files[path] = MISSING
        try:
            with open_file(path) as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no file can have that name"
            unread.append((key_path, f"the file {path} can't be read ({reason})"))
            continue
        # The digest must equal that of the file watch, which would otherwise always see a change.
        files[path] = digest(data) if len(data) <= MAX_BYTES else read_files([path])[path]
        try:
            sources.append(parse_yaml(data, path))
        except ConfigRejected as error:
            texts += error.problems
    return Catalogues(tuple(sources), tuple(unread), tuple(texts), files)


def _catalogue_names(values: dict[str, object]) -> Iterator[tuple[KeyPath, str]]:
    """Yield the names that are texts. Validation reports the others."""
    models = read_map(values, "catalogue").get("models")
    names = models[:_MAX_FILES] if isinstance(models, list) else [models]
    for index, name in enumerate(names):
        if isinstance(name, str) and name:
            yield (*_MODELS, index), name


def check_files(values: Mapping[str, object], folder: str) -> dict[str, FileState]:
    """Return the state of each file of location signals and of issuers' keys, so that its problems are reported."""
    location = read_map(values, "location")
    checked: dict[str, FileState] = {}
    for signal in SIGNALS.values():
        settings = signal.settings
        if settings is None or signal.section is None or settings.file_key is None:
            continue
        text = read_map(location, signal.section).get(settings.file_key)
        if isinstance(text, str) and (path := absolute_path(text, folder if settings.is_relative else "")):
            checked[path] = FILE_CHECKS[signal.name](path)
    for issuer in read_map(values, "token_issuers").values():
        text = as_map(issuer).get("jwks")
        if isinstance(text, str) and (path := absolute_path(text)):
            checked[path] = _check_keys(path)
    return checked


def _check_database(path: str) -> FileState:
    from gateway.geoip import GeoIpError, read_geoip  # imported late: most configurations have no database

    try:
        return FileState(age_s=time.time() - read_geoip(path).built_at)
    except GeoIpError as error:
        return FileState(str(error))


def _check_keys(path: str) -> FileState:
    try:
        with open_file(path) as file:
            document = json.loads(file.read(_MAX_KEY_SET_BYTES))
    except OSError as error:
        return FileState(f"can't be read ({error.strerror})")
    except (ValueError, RecursionError):
        return FileState("is not valid JSON, or is larger than 256 KB")
    is_set = isinstance(document, dict) and isinstance(document.get("keys"), list) and document["keys"]
    return FileState() if is_set else FileState("is not a key set: it has no list `keys`")


FILE_CHECKS: Mapping[str, Callable[[str], FileState]] = {"claim": _check_keys, "geoip": _check_database}
"""The check of the file of each signal that has one."""


@dataclass(frozen=True, slots=True)
class Document:
    """One configuration as it was read. Without resolved secrets, there are no files of signals, `tls` and secrets."""

    source: Source
    version: str
    """The first 12 hex digits of the content hash, which includes the catalogue files."""
    references: Mapping[str, Resolution]
    """The resolution of every `${…}` by its text."""
    signal_files: Mapping[str, FileState] = field(default_factory=dict)
    """The state of the files of location signals and of issuers' keys by path."""
    catalogues: Catalogues = field(default_factory=Catalogues)
    files: Reading = field(default_factory=dict)
    """The digest of every file that was read, by its path."""
    read_at_s: float = field(default_factory=time.time)
    """When it was read (Unix time). Expiry dates are judged by it."""
    written: SourceText | None = None
    real: frozenset[str] = frozenset()
    """The deployments that may be real although this is a demo (`gateway demo --with`)."""
    secrets_file: SecretsFile | None = None
    tls_files: Mapping[str, FileContent] | None = None
    """The files of `tls` of deployments by their name there."""
    term_files: Mapping[str, FileContent] = field(default_factory=dict)
    """The files of terms of `redactions`, by their reference."""
    has_other_terms: bool = False
    """Whether it is a version of the history whose files of terms have changed since."""
    reads_secrets: bool = True
    folder: str = "/"
    """The absolute path of the directory of the file."""


def load_document(
    path: FilePath | str, environ: Mapping[str, str], *, secrets: bool = True, clock: Callable[[], float] = time.time
) -> Document:
    """Read a configuration file. Raises ConfigRejected if it cannot be read, or is not valid YAML.

    Without `secrets`, no reference is resolved, and each is assumed to have a value: enough for a check. `clock`
    returns Unix time.
    """
    return parse_document(read_config(path), str(path), environ, secrets=secrets, clock=clock)


def read_config(path: FilePath | str, *, waits: bool = True) -> bytes:
    """Return the bytes of a config file, and at most one more than the allowed number. Raises ConfigRejected.

    With `waits`, the file may also be a pipe. Reading then waits for its writer.
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
    relative_to: str | None = None,
    stored_catalogues: str = "",
    secrets: bool | Literal["own"] = True,
    clock: Callable[[], float] = time.time,
) -> Document:
    """Read a configuration from bytes. See `load_document`.

    `file` is its name in problems. Relative paths refer to `relative_to` if `file` is not a path, as for a version of
    the history, whose files are `stored_catalogues`. `secrets`: False resolves no reference, and `own` leaves out those
    of what a rehearsal does not call.
    """
    source, config = parse_yaml(data, file), relative_to or file
    folder = os.path.dirname(os.path.abspath(config))
    texts = {*references_in(source.values), *environment_of(source.values)}
    unread = _UNREAD if secrets == "own" else ()
    named = {name: it for name, it in source.values.items() if name not in unread}
    read = {*references_in([*named.values()]), *environment_of(named)} if secrets else set()
    # The digests are taken before the references are resolved, so that a change in between is seen as a change.
    secret_files = read_files(filter(None, map(file_of, read)))
    references = {text: resolve(text, environ if text in read else None) for text in texts}
    signal_files = check_files(source.values, folder) if secrets else {}
    stored_values, stored_terms = stored_files(stored_catalogues)
    catalogues = (
        _stored_catalogues(stored_values, file) if stored_values is not None else read_catalogues(source.values, config)
    )
    secrets_file = _secrets_file(source.values, config) if secrets else None
    tls_files = read_tls_files(source.values, config) if secrets is True else None
    term_files = read_term_files(source.values)
    digests = digests_of(term_files)
    has_other_terms = bool(stored_terms) and stored_terms != digests
    if has_other_terms and not secrets:
        # The words of that version are not known any more. It is only compared, and differs from one that has others.
        term_files, digests = {}, stored_terms
    contents = [
        *(tls_files or {}).values(),
        *term_files.values(),
        *([secrets_file] if secrets_file is not None else ()),
    ]
    files = {file: digest(data), **secret_files, **catalogues.files, **{it.path: it.digest for it in contents}}
    values = catalogues.values if catalogues.files or stored_values is not None else None
    stored = "" if values is None else _canonical(values)
    stored = _canonical({"catalogues": values, "terms": digests}) if digests else stored
    written = SourceText(data, content_hash(source.values, values, digests), source.values, stored)
    return Document(
        source, written.version, references, signal_files, catalogues, files, clock(), written,
        secrets_file=secrets_file, tls_files=tls_files, term_files=term_files, has_other_terms=has_other_terms,
        reads_secrets=secrets is True, folder=folder,
    )  # fmt: skip


def read_tls_files(values: Mapping[str, object], config: str) -> dict[str, FileContent]:
    """Return the files that `tls` names, each read once. Paths are relative to the file `config`."""
    sections = [*read_map(values, "deployments").values(), *read_map(values, "sign_ins").values()]
    names = {read_map(as_map(section), "tls").get(key) for section in sections for key in TLS_KEYS}
    return {
        name: read_content(str(FilePath(config).parent / name), _MAX_PEM_BYTES, "a PEM file", _pem_text)
        for name in names
        if isinstance(name, str) and name
    }


def read_content(path: str, most_bytes: int, most: str, decode: Callable[[bytes], str]) -> FileContent:
    """Return a file of the configuration. `most` is the bound in words. `decode` may raise UnicodeDecodeError."""
    try:
        with open_file(path) as file:
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can have that name"
        return FileContent(path, problem=f"the file {path} can't be read ({reason})")
    if len(data) > most_bytes:
        return FileContent(path, digest(data), problem=f"the file {path} is larger than {most}")
    try:
        return FileContent(path, digest(data), decode(data))
    except UnicodeDecodeError:
        return FileContent(path, digest(data), problem=f"the file {path} is not UTF-8")


def _pem_text(data: bytes) -> str:
    # Comments between certificates may have any encoding, and editors of Windows begin a file with a mark.
    return data.removeprefix(BOM_UTF8).decode("ascii", "replace").replace("\ufffd", "?")


def read_term_files(values: Mapping[str, object]) -> dict[str, FileContent]:
    """Return the files of terms that `redactions` refers to, by their reference, each read once."""
    sections = map(as_map, read_map(values, "redactions").values())
    texts = {text for section in sections for text in read_list(section, "terms") if isinstance(text, str)}
    return {
        text: read_content(path, _MAX_TERM_BYTES, "8 MB", lambda data: data.decode("utf-8-sig"))
        for text in sorted(texts)
        if (path := file_of(text)) is not None
    }


def digests_of(term_files: Mapping[str, FileContent]) -> list[str]:
    """Return the digests of the files of terms that could be read, as they are a part of a version."""
    return sorted(each.digest for each in term_files.values() if not each.problem)


def _secrets_file(values: Mapping[str, object], config: str) -> SecretsFile | None:
    """Read the file that `secrets.file` names. Its path is relative to the file `config`."""
    name = read_map(values, "secrets").get("file")
    return read_secrets_file(str(FilePath(config).parent / name)) if isinstance(name, str) and name else None


def content_hash(values: object, catalogues: list[dict[str, object]] | None, terms: Sequence[str] = ()) -> str:
    """Return the content hash of a configuration: of its values, its catalogue files and the digests of its terms."""
    hashed = values if catalogues is None else [values, catalogues]
    hashed = [hashed, *terms] if terms else hashed
    return hashlib.sha256(_canonical(hashed).encode()).hexdigest()


def _canonical(values: object) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
