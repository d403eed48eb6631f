"""Resolve `${NAME}` and `${file:/path}` to secrets. No other module reads the secrets of a configuration.

Messages never contain a secret, nor a text that may be one.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from gateway.files import is_open_to_others
from providers.auth import Secret
from providers.value import Value

UNRESOLVED = Secret("unresolved")
"""Stands for a secret whose reference was not resolved."""

_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_FILE = re.compile(r"\$\{file:(/[^{}\0]+)\}")
# The syntax of references in other gateways, shells and templates. Without this check, the text would be sent as the
# key.
_FOREIGN = re.compile(
    r"os\.environ/\S+|(?:process\.)?env[.:/][A-Za-z_]\w*|\$(?:env:)?[A-Z_][A-Z0-9_]*"
    r"|\{\{[^{}]*\}\}|\{vault://[^{}]*\}|<[A-Z_][A-Z0-9_]*>"
)
_OF_ENVIRONMENT = re.compile(
    r"(?:os\.environ/|(?:process\.)?env[.:/]|\$(?:env:)?|\$\{env[:.])([A-Za-z_][A-Za-z0-9_]*)\}?"
)
"""A variable of the environment in the syntax of another program."""
_REFERENCE = re.compile(r"\$\{[^{}]*\}")
_MAX_SECRET_BYTES = 64 * 1024
# Every HTTP library sends these characters unchanged. RFC 9110, section 5.5, gives no guarantee for other octets.
_SENDABLE = re.compile(r"[!-~]([ -~]*[!-~])?")


class Resolution(Value, frozen=True):
    """The result of resolving one credential."""

    source: str = ""
    """The variable or the file, or empty for a text in the configuration."""
    secret: Secret | None = None
    missing: str = ""
    """Why there is no value, such as `is not set`."""
    mistake: str = ""
    """Why the value cannot be used, or the reference is invalid."""
    hint: str = ""
    is_open: bool = False
    """Whether other users of this machine may read the file. The secrets of containers often have such files."""

    @property
    def is_stand_in(self) -> bool:
        """Whether the reference was not resolved, so that the secret cannot be checked."""
        return self.secret is UNRESOLVED


def references_in(value: object) -> Iterator[str]:
    """Yield every string inside `value` that contains `${`, and the references inside a URL."""
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text if "${" in text:
                yield text
                if "://" in text:
                    yield from _REFERENCE.findall(text)
            case list() as items:
                pending.extend(items)
            case dict() as entries:
                pending.extend(entries.values())


def resolve(text: str, environ: Mapping[str, str] | None) -> Resolution:
    """Resolve a reference. Without `environ`, the secret is a placeholder."""
    match = _ENVIRONMENT.fullmatch(text) or _FILE.fullmatch(text)
    if match is None:
        named = _OF_ENVIRONMENT.fullmatch(text)
        name = named[1] if named else "NAME"
        hint = f"write ${{{name}}}, or ${{file:/path}} with the absolute path, and nothing else in the value"
        return Resolution(mistake="is not a reference that can be resolved", hint=hint)
    if environ is None:
        return Resolution(match[1], UNRESOLVED)
    if match.re is _FILE:
        return _from_file(match[1])
    value = environ.get(match[1], "")
    return _sendable(match[1], value) if value else Resolution(match[1], missing="is not set")


def file_of(text: str) -> str | None:
    """Return the path of the file that a reference names, or None."""
    match = _FILE.fullmatch(text)
    return match[1] if match is not None else None


def read_literal(text: str) -> Resolution:
    """Read a credential that is written in the configuration itself."""
    if _FOREIGN.fullmatch(text):
        named = _OF_ENVIRONMENT.fullmatch(text)
        name = named[1] if named else "NAME"
        hint = f"write ${{{name}}} for a variable of the environment, or ${{file:/path}} for a file"
        return Resolution(mistake="is a reference in the syntax of another program", hint=hint)
    return _sendable("", text) if text else Resolution(missing="is empty")


def _from_file(path: str) -> Resolution:
    try:
        status = FilePath(path).stat()
        if not stat.S_ISREG(status.st_mode):
            return Resolution(path, missing="is not a regular file")
        with FilePath(path).open("rb") as file:
            data = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        return Resolution(path, missing=f"can't be read ({error.strerror})")
    if len(data) > _MAX_SECRET_BYTES:
        return Resolution(path, mistake="is too large for a secret")
    value = data.decode("latin-1").removesuffix("\n").removesuffix("\r")
    return _sendable(path, value, is_open=is_open_to_others(status)) if value else Resolution(path, missing="is empty")


def _sendable(source: str, value: str, *, is_open: bool = False) -> Resolution:
    value = _on_one_line(value)
    if _SENDABLE.fullmatch(value):
        return Resolution(source, Secret(value), is_open=is_open)
    hint = "it must be one line of visible ASCII, without spaces at the start or end"
    return Resolution(source, mistake="can't be sent in a header", hint=hint)


def _on_one_line(value: str) -> str:
    """Return a value on one line, if it is a JSON object such as the key of a service account, or a key in PEM."""
    if value.startswith("-----BEGIN "):
        return " ".join(value.split())
    if not value.lstrip().startswith("{"):
        return value
    try:
        return json.dumps(json.loads(value), separators=(",", ":"))
    except (ValueError, RecursionError):
        return value
