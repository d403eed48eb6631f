"""Files of an evaluation -> sections, or every mistake at its place in the file, as for a config."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from gateway.config.findings import Findings
from gateway.config.load import read_config
from gateway.config.problems import ConfigRejected, Problem, choice_hint, quoted
from gateway.config.yaml_source import parse_yaml
from gateway.files import open_file

__all__ = ["FileFindings", "read_section", "read_text", "reject"]

_Section = TypeVar("_Section", bound=BaseModel)
FileFindings = Findings


def read_section(path: Path, section: type[_Section]) -> tuple[_Section, Findings]:
    """The section in a YAML file, and where to note what else is wrong with it; raises ConfigRejected."""
    findings = Findings(parse_yaml(read_config(path), str(path)))
    try:
        value = section.model_validate(findings.source.values)
    except ValidationError as rejection:
        for error in rejection.errors(include_url=False, include_input=False):
            place = tuple(part for part in error["loc"] if part != "[key]")
            if error["type"] == "extra_forbidden":
                known = _keys_at(section, place[:-1])
                findings.error(
                    place, f"unknown key {quoted(str(place[-1]))}", choice_hint(str(place[-1]), known), key=True
                )
            else:
                findings.error(place, _words(error["msg"]))
        raise ConfigRejected(findings.problems) from None
    if findings.rejected:
        raise ConfigRejected(findings.problems)
    return value, findings


def read_text(path: Path) -> str:
    """What stands in a file in UTF-8, with or without a mark in front; raises OSError, UnicodeDecodeError."""
    with io.TextIOWrapper(open_file(path), "utf-8-sig") as file:
        return file.read()


def reject(path: Path, line: int, message: str, hint: str = "") -> ConfigRejected:
    """What to raise for a file that isn't YAML: a mistake in one of its lines."""
    return ConfigRejected([Problem(str(path), line, 1 if line else 0, (), message, hint)])


def _words(message: str) -> str:
    return message[:1].lower() + message[1:]


def _keys_at(section: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The keys that a place of the file may have; none where it isn't a plain section."""
    current: type[BaseModel] = section
    for part in path:
        field = current.model_fields.get(part) if isinstance(part, str) else None
        inner = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        models = [one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)]
        if not models:
            models = _element_models(inner)
        if not models and field is not None:
            return []
        current = models[0] if models else current
    return [field.alias or name for name, field in current.model_fields.items()]


def _element_models(inner: list[object]) -> list[type[BaseModel]]:
    """The section inside `dict[str, list[Section]]` and its kin."""
    found: list[type[BaseModel]] = []
    for one in inner:
        found += [arg for arg in getattr(one, "__args__", ()) if isinstance(arg, type) and issubclass(arg, BaseModel)]
    return found
