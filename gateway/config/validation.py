"""The findings of a configuration, and its valid part: the part that can still be checked next to an error of shape."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import get_args

from gateway.config import shape
from gateway.config.loading import Document
from gateway.config.problems import KeyPath, Problem, Severity, choice_hint, quoted
from gateway.config.schema.file import GatewaySection
from gateway.config.secret_references import UNRESOLVED, Resolution, read_literal
from gateway.config.yaml_document import Source
from gateway.model.approval import Ending
from gateway.model.wrapper import Wrapper
from providers.auth import Secret
from providers.json_values import read_map

_PASSWORD_IN_URL = re.compile(r"://[^/@\s:]*:[^/@\s]*@")
# Optional keys whose loss would lead to wrong messages about the rest of the entry.
_ESSENTIAL = frozenset(
    "endpoint simulates project stores processes transit regions approvals consent identity redact".split()
)
_REQUIRED = {"version": 1, "assistants": {}, "regions": {}, "deployments": {}}


@dataclass(slots=True)
class Findings:
    """The errors and warnings found so far, beginning with those of the YAML parser and of gaps."""

    source: Source
    problems: list[Problem] = field(init=False)

    def __post_init__(self) -> None:
        self.problems = [*self.source.problems, *self.source.gaps]

    def error(self, path: KeyPath, message: str, hint: str = "", *, key: bool = False) -> None:
        """Add an error. With `key`, the last key of the path is wrong, not its value."""
        self._add(path, message, hint, "error", key)

    def report(self, errors: Iterable[shape.ShapeError]) -> None:
        """Add errors of shape."""
        for error in errors:
            self.error(error.path, error.message, error.hint, key=error.at_key)

    def warn(self, path: KeyPath, message: str, hint: str = "", *, fails_check: bool = False) -> None:
        """Add a warning. Warnings do not prevent the use of the configuration. See `Problem.fails_check`."""
        self._add(path, message, hint, "warning", False, fails_check)

    def warn_of_end(
        self, path: KeyPath, ending: Ending, hint: str, message: str = "", *, is_kept: bool = False
    ) -> None:
        """Warn of a fact that ends soon. Once it has ended, `gateway check` fails, unless the operator keeps it."""
        if ending.warned_days is not None:
            self.warn(path, message or str(ending), hint, fails_check=ending.is_over and not is_kept)

    @property
    def rejected(self) -> bool:
        """Whether there is an error among the findings."""
        return any(problem.severity == "error" for problem in self.problems)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The warnings, sorted by position."""
        warnings = {problem for problem in self.problems if problem.severity == "warning"}
        return tuple(sorted(warnings, key=lambda problem: problem.order))

    def line(self, path: KeyPath) -> int:
        """Return the line of a value, for the message about another value."""
        return self.source.position(shape.as_written(self.source.values, path))[0]

    def _add(
        self, path: KeyPath, message: str, hint: str, severity: Severity, key: bool, fails_check: bool = False
    ) -> None:
        path = shape.as_written(self.source.values, path)
        # A message may quote a value that stands at the wrong place.
        message = _PASSWORD_IN_URL.sub("://…@", message)
        line, column = self.source.position(path, key=key)
        if not self._is_gap(path, message, line, column):
            self.problems.append(Problem(self.source.file, line, column, path, message, hint, severity, fails_check))

    def _is_gap(self, path: KeyPath, message: str, line: int, column: int) -> bool:
        """Return whether a gap that was not filled is what this message is about: one gap is one error."""
        below = [gap for gap in self.source.gaps if gap.line > line and gap.column > column]
        if message == "is empty":
            return any(gap.line == line + 1 for gap in below)
        return message == "is missing" and any(gap.message.startswith(f"the value of `{path[-1]}`") for gap in below)


@dataclass(slots=True)
class Draft(Findings):
    """The valid part of a configuration that was read from a document, and the findings about it.

    `broken` has the paths that were removed: sections, entries and parts of entries. The compiler adds the entries that
    it finds invalid. `wrong` has the keys with an error of shape.
    """

    document: Document
    config: GatewaySection
    values: Mapping[str, object]
    broken: set[KeyPath]
    wrong: frozenset[KeyPath] = frozenset()
    wrappers: Mapping[str, Wrapper] = field(default_factory=dict)

    @property
    def references(self) -> Mapping[str, Resolution]:
        """The resolved references of the document, by their text."""
        return self.document.references

    def is_broken(self, *path: str) -> bool:
        """Whether the section or entry is present but invalid, so that references to it cannot be checked."""
        return path in self.broken or path[:1] in self.broken

    def is_whole(self, *path: str) -> bool:
        """Whether no part of it was removed."""
        return not self.is_broken(*path) and all(part[: len(path)] != path for part in self.broken)

    def keys_of(self, section: str) -> set[str]:
        """Return the keys that are written in a section."""
        return set(read_map(self.values, section))

    def names(self, section: str) -> set[str]:
        """Return every name that a section defines, including invalid entries."""
        valid = getattr(self.config, section)
        return {*valid, *(str(path[1]) for path in self.broken if path[0] == section and len(path) > 1)}

    def secret(self, path: KeyPath, text: str, variable: str, *, term: str = "secret") -> Resolution:
        """Return the resolution of a secret, and warn if it is written in the configuration itself.

        `variable` is the environment variable that the hint suggests, and `term` the word for the secret in the
        warning.
        """
        if "${" in text:
            return self.references[text]
        literal = read_literal(text)
        if not literal.mistake:
            hint = f"keep it in the environment or a file: ${{{variable}}}, ${{file:/run/secrets/…}}"
            self.warn(path, f"a {term} is written in the config", hint)
        return literal

    def secret_versions(
        self,
        path: KeyPath,
        texts: Sequence[str] | None,
        variable: str,
        *,
        term: str = "secret",
        unset: str = "set it, or remove it here",
        least: int = 0,
    ) -> tuple[Secret, ...]:
        """Return the valid versions of a secret, the newer one first, and report each that has no value.

        Two versions let the secret be replaced while its other holder still has the former one. `variable` and `term`
        are those of `secret`, `unset` is the hint for a value that is not set, and `least` the number of characters
        that a version needs.
        """
        if texts is not None and len(set(texts)) < len(texts):
            self.error((*path, 1), "is the same as the first version", "remove one")
        resolved = [self.secret((*path, index), text, variable, term=term) for index, text in enumerate(texts or ())]
        for index, version in enumerate(resolved):
            if problem := version.mistake or version.missing:
                hint = version.hint or unset
                self.error((*path, index), f"{version.source or f'the {term}'} {problem}", hint)
        versions = tuple(version.secret for version in resolved if version.secret is not None)
        for index, secret in enumerate(versions):
            if secret is not UNRESOLVED and len(secret.reveal()) < least:
                hint = f"create one with: openssl rand -base64 {least}"
                self.error((*path, index), f"is shorter than {least} characters", hint)
        return versions


def check_reference(draft: Draft, path: KeyPath, section: str, name: str, *, key: bool = False, none: str = "") -> bool:
    """Report a name (with `key`, the key at this path) that its section does not define; return whether it does."""
    known = draft.names(section)
    if name in known or draft.is_broken(section):
        return True
    hint = choice_hint(name, known, none=none or "there is none")
    draft.error(path, f"unknown {section.removesuffix('s')} {quoted(name)}", hint, key=key)
    return False


def validate(document: Document, section: type[GatewaySection]) -> Draft:
    """Return the valid part of the values of a document, with every error of shape."""
    values = document.source.values
    config, errors = _read(values, section)
    if config is not None and not errors:
        return Draft(document.source, document, config, values, set())
    broken: set[KeyPath] = set()
    config, pruned = shape.valid_part(
        section, _REQUIRED, values, errors, lambda part, path: broken.add(_take_out(part, path, section))
    )
    wrong = {_key_of(error.path) for error in errors if error.meant is None and not error.removable}
    draft = Draft(document.source, document, config, pruned, broken, frozenset(wrong))
    draft.report(errors)
    return draft


def provisional(draft: Draft) -> Draft | None:
    """Return the draft with the rest of its broken parts, or None if nothing can be put back.

    Only the wrong keys are left out, or replaced by a valid value if the entry requires them. The draft serves to find
    the other mistakes of these parts. It must never be served.
    """
    if not draft.wrong:
        return None
    section = type(draft.config)
    named, errors = _named(section), _read(draft.source.values, section)[1]
    values = shape.mended(draft.source.values, errors, lambda part, path: _stand_in(part, _key_of(path)))
    broken: set[KeyPath] = set()
    config, errors = shape.read_shape(section, _REQUIRED | values)
    for error in errors:
        if error.path[0] in named and len(error.path) > 3:  # a required key of a mapping inside the entry
            shape.remove(values, error.path[:3])
        else:
            broken.add(_take_out(values, error.path, section))
    if config is None:
        config, errors = shape.read_shape(section, _REQUIRED | values)
    if config is None or broken == draft.broken:
        return None
    return Draft(draft.source, draft.document, config, values, broken, draft.wrong)


def _key_of(path: KeyPath) -> KeyPath:
    """Return the path without list indexes at its end."""
    while len(path) > 1 and isinstance(path[-1], int):
        path = path[:-1]
    return path


def _stand_in(values: dict[str, object], path: KeyPath) -> None:
    """Remove a wrong key, or replace its value if an entry requires it."""
    parent, key = shape.parent_of(values, path), str(path[-1])
    values_of_keys = _stand_ins().get(str(path[0]), {})
    if key in values_of_keys:
        parent[key] = values_of_keys[key]
    else:
        parent.pop(key, None)


@cache
def _stand_ins() -> dict[str, dict[str, object]]:
    """Return values of required keys with which the rest of an entry can be read, by section."""
    return tomllib.loads(resources.files("gateway.config").joinpath("data", "stand_ins.toml").read_text("utf-8"))


def _read(
    values: dict[str, object], section: type[GatewaySection]
) -> tuple[GatewaySection | None, list[shape.ShapeError]]:
    """Return the sections and the errors of shape. The sections are None if pydantic rejects the values."""
    return shape.read_shape(section, values, shape.misplaced((), values))


def _take_out(values: dict[str, object], path: KeyPath, root: type[GatewaySection]) -> KeyPath:
    """Remove the smallest part around the path that leaves the rest valid. Return the path of that part."""
    match path:
        case ("assistants", _, "routes", _, *_) | (("location" | "resilience" | "usage" | "stores"), _, *_):
            part = path[:4] if path[0] == "assistants" else path[:2]
        case (section, _, str(field), *_) if section in _named(root) and _is_optional(
            _named(root)[str(section)], field
        ):
            part = path[:3]
        case (section, _, *_) if section in _named(root):
            part = path[:2]
        case _:
            part = path[:1]
    shape.remove(values, part)
    return part


@cache
def _named(root: type[GatewaySection]) -> dict[str, type]:
    """Return the sections of the file whose entries have names, with the class of an entry."""
    values = {name: get_args(field.annotation)[1:] for name, field in root.model_fields.items()}
    entries = {name: it[0] for name, it in values.items() if it and isinstance(it[0], type)}
    return {name: entry for name, entry in entries.items() if shape.keys_of(entry)}


def _is_optional(entry: type, field: str) -> bool:
    known = shape.keys_of(entry).get(field)
    return known is not None and not known.is_required and field not in _ESSENTIAL
