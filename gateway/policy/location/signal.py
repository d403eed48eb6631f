"""A location signal: everything that the gateway knows of one, stated in one value.

A signal works in two steps. `report` takes the peer and the headers of a request and returns a frozen value, which may
be a `Question` that `service/location.py` answers. `read` turns the report into a `Reading`: evidence for people, and
its meaning for the decision. The strength of a signal is not a property of it: the operator's order in
`location.signals` decides.

A report is remembered: the cache of locations is keyed by the headers that the signals declare, and a location is
computed from that key alone. A header that a signal reads and does not declare raises `KeyError`. A report that also
depends on the time, on a file or on a server is a `Question`, which is answered for each request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol

from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.location import Evidence, LocationProblem, Reports
from gateway.model.location_rules import LocationRules
from gateway.model.permit import ServicePermit
from gateway.model.section import PlainSection
from gateway.policy.location.subdivisions import code_of, is_as_strict, is_cut, is_split, region_in, with_part
from gateway.policy.location.trusted_edge import SignalInput
from providers.auth import Secret
from providers.territories import Places, TerritoryError, parse_territory, territory_data
from providers.value import Value

_SHOWN_CHARACTERS = 40
_FILE_REFERENCE = re.compile(r"\$\{file:(/[^{}\0]+)\}")


class Reading(Value, frozen=True):
    """The result of reading one signal."""

    evidence: Evidence
    region: Region | None = None
    speaks: bool = False
    """It gives a territory."""
    unknown: bool = False
    """The client hides its location, so weaker signals do not count."""
    doubtful: bool = False
    """The signal is trusted and cannot be read, so no other signal counts either."""
    vague: bool = False
    """It gives a country of which only the part has a region."""
    problem: LocationProblem | None = None
    """The signal ends the decision with this problem."""

    @property
    def bounds(self) -> Places | None:
        """The territories to which a prompt from this location may go.

        They differ inside one region if prompts of some territories must stay at home.
        """
        return self.region.bounds_of(self.evidence.territory) if self.region is not None else None

    def is_as_strict(self, other: Reading) -> bool:
        """Return whether everything that is allowed for a prompt from here is allowed for one from there too."""
        if self.region is None or other.region is None:
            return False
        return is_as_strict(self.region, self.evidence.territory, other.region, other.evidence.territory)


class FileState(Value, frozen=True):
    """The state of a file that a section names: its age by its build date, and why it cannot be used now, or empty."""

    problem: str = ""
    age_s: float = 0.0


class SectionReader(Protocol):
    """Resolves what a section of `location` refers to, and reports its mistakes. `key` is a key of the section."""

    def error(self, key: str, message: str, hint: str = "") -> None:
        """Report a mistake. An empty key is the section as a whole."""

    def warn(self, key: str, message: str, hint: str = "") -> None:
        """Report what does not prevent the use of the section."""

    def secret(self, key: str, texts: Sequence[str], variable: str, *, least: int) -> tuple[Secret, ...]:
        """Return the versions of a secret, the newer one first. Empty after an error.

        They are texts or references in the section, of at least `least` characters.
        """

    def service(self, key: str, url: str) -> tuple[ServicePermit, str] | None:
        """Return the permit for the origin of a URL and the path, or None after an error."""

    @property
    def folder(self) -> str:
        """The absolute path of the directory of the config file."""

    def file(self, path: str) -> FileState | None:
        """Return the state of a file, or None if files are not read."""


def absolute_path(text: str, folder: str = "") -> str | None:
    """Return the absolute path that the text names, directly or as `${file:/path}`, or None.

    With `folder`, a relative path refers to it.
    """
    match = _FILE_REFERENCE.fullmatch(text)
    path = match[1] if match else text
    if folder and path and "${" not in path and "://" not in path and not path.startswith("/"):
        path = f"{folder}/{path}"
    return path if path.startswith("/") and "\0" not in path else None


class OwnSection(Value, frozen=True):
    """The section of a signal, which is the key `section` of `location`."""

    keys: type[PlainSection]
    """The keys of the section, with their bounds and meanings."""
    meaning: str
    """The purpose of the section, for the reference of the configuration."""
    rules: type[Hashable]
    """The class of the compiled section in `LocationRules.own`."""
    compiled: Callable[[Any, SectionReader], Hashable | None]
    """Returns the rules of a section, or None after an error has been reported."""
    file_key: str | None = None
    """The key that names a file, whose state is reported by `check`, or None."""
    is_relative: bool = False
    """Whether the path of this file may be relative to the config file."""


class Signal(Value, frozen=True):
    """A signal that can show where a caller is."""

    name: str
    report: Callable[[LocationRules, SignalInput], Hashable | None]
    """Returns the report of a request under these rules, or None if the signal is absent."""
    read: Callable[[ConfigVersion, Client | None, Reports], Reading | None]
    """Returns the meaning of the report in a config version, or None if there is nothing to record."""
    headers: Callable[[LocationRules], Iterable[str]]
    """Returns every header that `report` reads under these rules."""
    can_locate: Callable[[ConfigVersion], bool]
    """Returns whether a config version has everything with which the signal can locate some caller."""
    section: str | None = None
    """The key of `location` that sets the signal up, or None if it needs none."""
    settings: OwnSection | None = None
    """The value of this key, if it belongs to this signal alone."""
    client_right: str | None = None
    """The word in a client's `may_assert` without which the signal is ignored, or None."""
    reads_edges: bool = False
    """Whether it reads headers that trusted edges add: such a request came through a proxy."""
    needs_lookup: bool = False
    """Whether its report may be a question that must be answered first."""
    suppose: Callable[[str], Hashable | None] = lambda _: None
    """Returns the report that `explain` assumes for a territory, or None if it is not used for that."""
    source: str = ""
    """Where it comes from, in the words of the page for operators."""
    use: str = ""
    """When it is used, in these words."""

    @property
    def setup_key(self) -> str | None:
        """The configuration that sets the signal up, as it is written in messages, or None if it needs none."""
        if self.section is not None:
            return f"location.{self.section}"
        return f"may_assert: [{self.client_right}]" if self.client_right is not None else None


def read_territory(config: ConfigVersion, signal: str, values: tuple[str, ...], parts: tuple[str, ...] = ()) -> Reading:
    """Read a signal whose values are a territory code and perhaps the code of its part. Other values are a doubt."""
    text = shown((*values, *parts) if any(parts) else values)
    codes = {code_of(value) for value in values}
    if len(codes) != 1:
        return Reading(Evidence(signal, text, note="in doubt: it has several different values"), doubtful=True)
    code = codes.pop()
    data = territory_data()
    code = data.aliases.get(code, code)
    if not code or code in data.unknown:
        return Reading(Evidence(signal, text, note="silent: the territory is unknown"))
    if code in data.hidden:
        return Reading(Evidence(signal, text, note="hidden: Tor, or an anonymous proxy; no territory"), unknown=True)
    try:
        whole = with_part(code, parts)
    except TerritoryError:
        return Reading(Evidence(signal, text, note="in doubt: not a territory code"), doubtful=True)
    try:
        territory = parse_territory(whole)
    except TerritoryError:
        what = "a territory code" if whole[:2] not in data.names else "a part of this country in ISO 3166-2"
        return Reading(Evidence(signal, text, note=f"in doubt: not {what}"), doubtful=True)
    if is_cut(config, territory):
        note = "in doubt: a larger or smaller part has its own rule"
        return Reading(Evidence(signal, text, note=note), doubtful=True)
    region = region_in(config, territory)
    name = region.name if region else None
    if not is_split(config, territory):
        return Reading(Evidence(signal, text, territory, name), region, speaks=True)
    note = "a part of this country is in another region, and which part is not known"
    note = f"{note}: the stricter one applies" if region is not None else f"in doubt: {note}"
    return Reading(Evidence(signal, text, territory, name, note), region, speaks=True, vague=region is None)


def shown(values: tuple[str, ...]) -> str:
    """Return the values as short, visible ASCII for a log line or a header."""
    text = ", ".join(values)[: _SHOWN_CHARACTERS + 1]
    clean = "".join(character if " " <= character <= "~" else "?" for character in text)
    return clean if len(clean) <= _SHOWN_CHARACTERS else f"{clean[:_SHOWN_CHARACTERS]}..."
