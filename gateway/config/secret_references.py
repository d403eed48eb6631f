"""`${NAME}` and `${file:/path}` -> secrets: the only place where a config's secrets are read.

What can't be used is said without showing it: neither a secret nor a text that may be one is ever in a message.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

from gateway.config.problems import KeyPath
from gateway.config.validation import Findings
from providers.auth import Secret

_UNRESOLVED = Secret("unresolved")

_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_FILE = re.compile(r"\$\{file:(/[^{}\0]+)\}")
# How other gateways, shells and templates write a reference: taken as a secret, the words themselves would be sent.
_FOREIGN = re.compile(
    r"os\.environ/\S+|(?:process\.)?env[.:/][A-Za-z_]\w*|\$(?:env:)?[A-Z_][A-Z0-9_]*"
    r"|\{\{[^{}]*\}\}|\{vault://[^{}]*\}|<[A-Z_][A-Z0-9_]*>"
)
_MAX_SECRET_BYTES = 64 * 1024
# What every HTTP library sends unchanged; RFC 9110 section 5.5 leaves other octets to luck.
_SENDABLE = re.compile(r"[!-~]([ -~]*[!-~])?")


@dataclass(frozen=True, slots=True)
class Resolution:
    """What became of one credential.

    source: the variable or file, "" for a text written in the file. missing: why there is nothing, such as
    `is not set`. mistake, hint: why it could never be used, whatever the environment holds.
    """

    source: str = ""
    secret: Secret | None = None
    missing: str = ""
    mistake: str = ""
    hint: str = ""

    @property
    def is_stand_in(self) -> bool:
        """Whether nothing was looked up, so that nothing can be said of the secret."""
        return self.secret is _UNRESOLVED


def references_in(value: object) -> Iterator[str]:
    """Every string below `value` that has `${` in it."""
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text if "${" in text:
                yield text
            case list() as items:
                pending.extend(items)
            case dict() as entries:
                pending.extend(entries.values())


def resolve(text: str, environ: Mapping[str, str] | None) -> Resolution:
    """The secret that a reference names, or why there is none; without `environ` a stand-in that opens nothing."""
    match = _ENVIRONMENT.fullmatch(text) or _FILE.fullmatch(text)
    if match is None:
        hint = "write ${NAME}, or ${file:/path} with the whole path, and nothing beside it"
        return Resolution(mistake="is no reference that can be resolved", hint=hint)
    if environ is None:
        return Resolution(match[1], _UNRESOLVED)
    if match.re is _FILE:
        return _from_file(match[1])
    value = environ.get(match[1], "")
    return _sendable(match[1], value) if value else Resolution(match[1], missing="is not set")


def file_of(text: str) -> str | None:
    """The path of the file that a reference names, if it names one."""
    match = _FILE.fullmatch(text)
    return match[1] if match is not None else None


def read_literal(text: str) -> Resolution:
    """A credential that is written in the config itself."""
    if _FOREIGN.fullmatch(text):
        hint = "write ${NAME} for a variable of the environment, or ${file:/path} for a file"
        return Resolution(mistake="is a reference in another program's words", hint=hint)
    return _sendable("", text) if text else Resolution(missing="is empty")


def secret_at(
    findings: Findings,
    place: KeyPath,
    text: str,
    references: Mapping[str, Resolution],
    variable: str,
    *,
    called: str = "secret",
) -> Resolution:
    """What became of the secret whose text stands at this place; one that is written out there is warned of.

    variable: where such a one could be kept instead. called: what it is to whoever reads the warning.
    """
    if "${" in text:
        return references[text]
    found = read_literal(text)
    if not found.mistake:
        hint = f"keep it in the environment or a file: ${{{variable}}}, ${{file:/run/secrets/…}}"
        findings.warn(place, f"a {called} is written in the config", hint)
    return found


def _from_file(path: str) -> Resolution:
    try:
        if not stat.S_ISREG(FilePath(path).stat().st_mode):
            return Resolution(path, missing="is no regular file")
        with FilePath(path).open("rb") as file:
            data = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        return Resolution(path, missing=f"can't be read ({error.strerror})")
    if len(data) > _MAX_SECRET_BYTES:
        return Resolution(path, mistake="is too large for a secret")
    value = data.decode("latin-1").removesuffix("\n").removesuffix("\r")
    return _sendable(path, value) if value else Resolution(path, missing="is empty")


def _sendable(source: str, value: str) -> Resolution:
    value = _on_one_line(value)
    if _SENDABLE.fullmatch(value):
        return Resolution(source, Secret(value))
    hint = "it must be one line of visible ASCII, without spaces around it"
    return Resolution(source, mistake="can't be sent in a header", hint=hint)


def _on_one_line(value: str) -> str:
    """A JSON object, such as a service account's key file, without the lines that people read it by; else the value."""
    if not value.lstrip().startswith("{"):
        return value
    try:
        return json.dumps(json.loads(value), separators=(",", ":"))
    except (ValueError, RecursionError):
        return value
