"""The lines that replace a deployment whose provider has ended: in a message, and in a copy of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gateway.config.problems import ConfigRejected, quoted
from gateway.config.yaml_document import Source, parse_yaml
from providers.catalogue.ended import EndedProvider, ended_providers
from providers.json_values import as_map, read_map

_EMPTY = '""'


def ended_message(provider: str, ended: EndedProvider) -> str:
    """Return the message about a provider that has ended."""
    return f"the API of {quoted(provider)} ended on {ended.on} ({ended.citation.source})"


def lines_for(section: dict[str, object], ended: EndedProvider) -> dict[str, str]:
    """Return the keys of a deployment with their new values. An empty value has to be filled in.

    An endpoint that is a URL is that of the former API, so it becomes the successor's first site.
    """
    sites, site = ended.sites, str(section.get("simulates") or section.get("endpoint") or "")
    place = "simulates" if section.get("endpoint") == "simulator" else "endpoint"
    lines = {"provider": ended.successor, "model": ended.model_for(str(section.get("model", "")))}
    lines[place] = sites.get(site, next(iter(sites.values())))
    if place == "endpoint" or "api_key" in section:
        lines["api_key"] = f"${{{ended.key}}}"
    return lines


def hint_for(section: dict[str, object], ended: EndedProvider, file: str) -> str:
    """Return the hint with the lines to write in place of those of an ended provider."""
    lines = lines_for(section, ended)
    written = ", ".join(f"{key}: {value or '(a model of it: none replaces this one)'}" for key, value in lines.items())
    return f"write {written}; or let `gateway init --from {file} --to DIR` write them"


def successors_written(data: bytes, file: str) -> tuple[str, list[str]] | None:
    """Return the text of a gateway's config with the successors of ended providers, and a line for each change.

    Comments and all other lines stay as they are. None is returned for a file of another program. Raises ConfigRejected
    for invalid YAML.
    """
    source = parse_yaml(data, file)
    if "version" not in source.values or "deployments" not in source.values:
        return None
    if source.problems:
        raise ConfigRejected(source.problems)
    lines = data.decode("utf-8").splitlines(keepends=True)
    edits = sorted(_edits(source), reverse=True)
    for edit in edits:
        lines[edit.line - 1] = edit.applied(lines[edit.line - 1])
    return "".join(lines), [str(edit) for edit in reversed(edits)]


class _Edit(NamedTuple):
    """One value that changes. `line` and `column` are those of the old one, and `added` are keys that it lacks."""

    line: int
    column: int
    old: str
    new: str
    added: dict[str, str]

    def applied(self, text: str) -> str:
        """Return the line with the new value, and with the added keys in the style of the line."""
        before, after = text[: self.column - 1], text[self.column - 1 :]
        quote = "" if after.startswith(self.old) else after[0]
        new = f"{quote}{self.new}{quote}"
        length = len(self.old) + 2 * len(quote)
        is_flow = "{" in before or "," in before
        indent = before[: len(before) - len(before.lstrip())]
        joint = ", " if is_flow else f"\n{indent}"
        added = "".join(f"{joint}{key}: {value}" for key, value in self.added.items())
        return f"{before}{new or _EMPTY}{added}{after[length:]}"

    def __str__(self) -> str:
        added = "".join(f", {key}: {value}" for key, value in self.added.items())
        return f"line {self.line}: {self.old} -> {self.new or 'none replaces it: choose one'}{added}"


def _edits(source: Source) -> Iterator[_Edit]:
    for name, written in read_map(source.values, "deployments").items():
        section = dict(as_map(written))
        ended = ended_providers().get(str(section.get("provider")))
        if ended is None:
            continue
        new = lines_for(section, ended)
        added = {key: value for key, value in new.items() if key not in section}
        for key, value in new.items():
            if isinstance(old := section.get(key), str):
                line, column = source.position(("deployments", name, key))
                yield _Edit(line, column, old, value, added if key == "provider" else {})
