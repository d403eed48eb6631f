"""The interface of a location signal: its input, its report, and the reading of the report.

A signal works in two steps. `report` takes the peer and the headers of a request and returns a report: a frozen value,
such as those of `gateway.model.location`. If a signal `needs_lookup`, its report may be a `Question`, which
`service/location.py` answers. `read` turns the report into a `Reading`: evidence for people, and its meaning for the
decision. `client_signals.py` has the simplest signals, `edge_header.py` one that trusts only edges.

The cache of locations is keyed by the headers that the signals declare, and a location is computed from that key
alone. A header that a signal reads and does not declare raises `KeyError` in every test. So does the edge of a signal
that does not declare `reads_edges`.

No other module lists signals. `gateway check` and `gateway explain`, the warnings about a section or a client's right
that has no effect, and the refusal of proxies without client keys ask each signal of the registry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.location import Evidence, LocationProblem, Reports
from gateway.model.location_rules import Edge, LocationRules, SignalName
from gateway.policy.location.subdivisions import code_of, is_as_strict, is_cut, is_split, region_in, with_part
from providers.territories import Places, TerritoryError, parse_territory, territory_data

_SHOWN_CHARACTERS = 40
_SPACE = b" \t"


class SignalInput:
    """The part of a request that a signal may read: the peer, the trusted edge that it is, and the declared headers."""

    __slots__ = ("_edge", "_reads_edges", "_values", "peer")

    def __init__(
        self,
        peer: str | None,
        edge: Edge | None,
        values: Mapping[str, tuple[bytes, ...]],
        *,
        reads_edges: bool = True,
    ) -> None:
        self.peer = peer
        self._edge = edge
        self._values = values
        self._reads_edges = reads_edges

    @property
    def edge(self) -> Edge | None:
        """The trusted edge that the peer is, or None; raises KeyError for a signal that does not read edges."""
        if not self._reads_edges:
            raise KeyError("the signal reads an edge, and its `reads_edges` is False")
        return self._edge

    def raw_values(self, header: str) -> tuple[bytes, ...]:
        """Return every value of a header as it arrived; raises KeyError for a header that is not declared."""
        return self._values[header]

    def values(self, header: str) -> tuple[str, ...]:
        """Return every value of a header as text, without the space around it."""
        return tuple([value.strip(_SPACE).decode("latin-1") for value in self._values[header]])


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading one signal.

    Attributes:
        speaks: It gives a territory.
        unknown: The client hides its location, so weaker signals do not count.
        doubtful: The signal is trusted and cannot be read, so no other signal counts either.
        vague: It gives a country of which only the part has a region.
        problem: The signal ends the decision with this problem.
    """

    evidence: Evidence
    region: Region | None = None
    speaks: bool = False
    unknown: bool = False
    doubtful: bool = False
    vague: bool = False
    problem: LocationProblem | None = None

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


class Signal(ABC):
    """A signal that can show where a caller is.

    Every member that a signal must decide is abstract, because a default would hide a forgotten one. The strength of a
    signal is not a property of it: the operator's order in `location.signals` decides.
    """

    @property
    @abstractmethod
    def name(self) -> SignalName:
        """The name in `location.signals`, in `x-gateway-why` and in evidence."""

    @property
    @abstractmethod
    def section(self) -> str | None:
        """The key of `location` that sets the signal up, or None if it needs none."""

    @property
    @abstractmethod
    def reads_edges(self) -> bool:
        """Whether it reads headers that trusted edges (`location.edges`) add.

        A request with one of its headers counts as one that came through a proxy.
        """

    @property
    @abstractmethod
    def client_right(self) -> str | None:
        """The word in a client's `may_assert` without which the signal is ignored, or None if it needs none."""

    @property
    def setup_key(self) -> str | None:
        """The configuration that sets the signal up, as it is written in messages, or None if it needs none."""
        if self.section is not None:
            return f"location.{self.section}"
        return f"may_assert: [{self.client_right}]" if self.client_right is not None else None

    @property
    @abstractmethod
    def needs_lookup(self) -> bool:
        """Whether a report of this signal may be a question that must be answered first."""

    @abstractmethod
    def can_locate(self, config: ConfigVersion) -> bool:
        """Return whether this config version has everything with which the signal can locate some caller.

        Its section is set up, and a client has the right or the region that it needs.
        """

    @abstractmethod
    def headers(self, rules: LocationRules) -> Iterable[str]:
        """Return every header that `report` reads under these rules. Their case does not matter."""

    @abstractmethod
    def report(self, rules: LocationRules, given: SignalInput) -> Hashable | None:
        """Return the report of the request under these rules, or None if the signal is absent."""

    @abstractmethod
    def read(self, config: ConfigVersion, client: Client | None, reports: Reports) -> Reading | None:
        """Return the meaning of the report in this config version, or None if there is nothing to record."""

    @abstractmethod
    def suppose(self, territory: str) -> Hashable | None:
        """Return the report that `explain` assumes for a territory, or None if the signal is not used for that."""

    @abstractmethod
    def identity(self, rules: LocationRules) -> Hashable:
        """Return what must be equal in two config versions so that a running request keeps its location.

        Values of secrets and keys are left out, because secrets and keys are rotated.
        """


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
        return Reading(
            Evidence(signal, text, note="in doubt: a larger or smaller part has its own rule"), doubtful=True
        )
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
