"""Read, write and rotate the file that `secrets.file` names, with all keys of a cell."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from gateway.config.problems import ConfigRejected
from gateway.config.sensitive_keys import secret_names
from gateway.config.source_text import MISSING, digest
from gateway.config.yaml_document import parse_yaml
from gateway.files import is_open_to_others, open_file
from gateway.operator_errors import CommandError
from gateway.undo import undone_on_failure
from providers.auth import Secret
from providers.value import Value

LEAST_CHARACTERS = 32
MOST_VERSIONS = 2
_MOST_BYTES = 64 * 1024
_FORMER_KEYS = ("cookies", "receipts")  # the file of release 0.2.0 has them; nothing used them
_HEAD = """\
# The keys of a cell. All its instances have the same file, and only their system user may read it.
# Each key has at most two valid versions, the newer one first. `gateway secrets rotate` adds one.
"""
_NEW = "`gateway secrets new FILE` writes one"


class SecretsFile(Value, frozen=True):
    """The content of the file."""

    path: str
    digest: str = MISSING
    keys: Mapping[str, tuple[Secret, ...]] = {}
    """The valid versions of each key, the newer one first."""
    problem: str = ""
    """Why it cannot be used, or empty. It never contains a key."""
    hint: str = ""


def read_secrets_file(path: str) -> SecretsFile:
    """Read the file. Its problem is in the result."""
    try:
        with open_file(path) as file:
            is_open = is_open_to_others(os.fstat(file.fileno()))
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can have that name"
        return SecretsFile(path, problem=f"the file {path} can't be read ({reason})", hint=_NEW)
    found = digest(data)
    if is_open:
        problem = f"the file {path} is readable by other users"
        return SecretsFile(path, found, problem=problem, hint=f"run `chmod 600 {path}`")
    try:
        values = parse_yaml(data, path).values if len(data) <= _MOST_BYTES else {}
    except ConfigRejected:
        # A message of the parser could quote a key.
        values = {}
    keys: dict[str, tuple[Secret, ...]] = {}
    for name in secret_names():
        versions = values.get(name)
        items = versions if isinstance(versions, list) else [versions]
        texts = [item for item in items if isinstance(item, str) and _is_key(item)]
        if not 1 <= len(texts) == len(items) <= MOST_VERSIONS or len(set(texts)) < len(texts):
            rule = f"one or two different texts of at least {LEAST_CHARACTERS} visible ASCII characters"
            return SecretsFile(path, found, problem=f"`{name}` in the file {path} must be {rule}", hint=_NEW)
        keys[name] = tuple(Secret(text) for text in texts)
    if unknown := values.keys() - {*secret_names(), *_FORMER_KEYS}:
        return SecretsFile(
            path,
            found,
            problem=f"the file {path} has {len(unknown)} unknown keys",
            hint=f"it has {', '.join(secret_names())}",
        )
    return SecretsFile(path, found, keys)


def write_new_secrets(path: Path) -> None:
    """Write a new file with a version of each key, mode 0600. Raises CommandError if the file exists."""
    text = _text({name: [_new()] for name in secret_names()})
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(f"{path} exists already; no file was written") from None
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}") from None


def rotate_secret(path: Path, name: str) -> None:
    """Add a new version of a key, and remove the version before the last one. Raises CommandError."""
    if name not in secret_names():
        raise CommandError(f"there is no key {name!r}; the file has {', '.join(secret_names())}")
    read = read_secrets_file(str(path))
    if read.problem:
        raise CommandError(f"{read.problem}; {read.hint}")
    keys = {one: [version.reveal() for version in versions] for one, versions in read.keys.items()}
    keys[name] = [_new(), *keys[name]][:MOST_VERSIONS]
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with undone_on_failure(lambda: _remove(draft)):
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(_text(keys))
            draft.replace(path)
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}") from None


def _remove(draft: Path) -> None:
    with suppress(OSError):
        draft.unlink()


def _is_key(text: str) -> bool:
    return len(text) >= LEAST_CHARACTERS and text.isascii() and text.isprintable()


def _new() -> str:
    return secrets.token_urlsafe(32)


def _text(keys: Mapping[str, list[str]]) -> str:
    lines = [f"{name}:\n" + "".join(f'  - "{version}"\n' for version in versions) for name, versions in keys.items()]
    return _HEAD + "".join(lines)
