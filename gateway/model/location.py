"""The location of a caller, the evidence for it, and the report of each signal."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from gateway.model.age import AgeBand
from gateway.model.config_version import Region
from gateway.model.region_text import NO_PREFERENCES, Preferences
from providers.value import Value

Address = IPv4Address | IPv6Address


class LocationProblem(StrEnum):
    """Why every request from a location is refused. It has no region then, except for `AGE`."""

    UNKNOWN = "unknown"
    CONFLICT = "conflict"
    BLOCKED = "blocked"
    CLAIM = "claim"  # a signed claim was sent and is rejected
    CLAIM_UNCHECKED = "claim_unchecked"  # a signed claim was sent and cannot be verified right now
    AGE = "age"  # the region refuses users of this age, or of an unknown one


class Evidence(Value, frozen=True):
    """The value of one signal, cleaned for display, the region that it points to, and whether it won.

    The note states why the signal was ignored, or what it means, for people.
    """

    signal: str
    value: str
    territory: str | None = None
    region: str | None = None
    note: str = ""
    decided: bool = False


@dataclass(frozen=True, slots=True)
class Location:
    """The decided location of a caller."""

    region: Region | None
    """The region of the caller. None where there is a problem, except `AGE`."""
    territory: str | None
    """The territory of the caller. None where it is unknown, which is possible inside a known region."""
    why: str
    """The name of the winning signal, or `unknown`."""
    evidence: tuple[Evidence, ...]
    problem: LocationProblem | None = None
    assumed: bool = False
    """Whether the region was taken because no signal gave one."""
    preferences: Preferences = field(default=NO_PREFERENCES, repr=False)
    """How the user wants to be addressed. This is not evidence of a location."""
    age: AgeBand | None = None
    """The rules for the age of the user. None for adults."""
    may_be_kept: bool = True
    """Whether this cell may keep who asked from here (`kept_metadata.may_keep`)."""

    @property
    def age_band(self) -> str | None:
        """The name of the user's age band. None without one, and for an unknown age."""
        return (self.age.name or None) if self.age is not None else None

    @property
    def may_hand_off(self) -> bool:
        """Whether a barrier may open for users of this age."""
        return self.age is None or self.age.hand_off


class ClaimProblem(StrEnum):
    """Why a claim is rejected: the class that is shown to clients, in the log and by `explain`.

    Each has its `words` for people.
    """

    words: str

    def __new__(cls, code: str, words: str) -> ClaimProblem:
        member = str.__new__(cls, code)
        member._value_, member.words = code, words
        return member

    REPEATED = "repeated", "it was sent more than once"
    TOO_LARGE = "too_large", "it is too long"
    MALFORMED = "malformed", "it is not a signed token, or a member of it has the wrong type"
    ALGORITHM = "algorithm", "it is signed by an algorithm that is not accepted"
    KEY = "unknown_key", "it is not signed by a key of the issuer"
    SIGNATURE = "signature", "its signature is wrong"
    ISSUER = "issuer", "it comes from another issuer"
    AUDIENCE = "audience", "its audience is not this gateway"
    EXPIRED = "expired", "it has expired"
    NOT_YET = "not_yet_valid", "it is not valid yet"
    LONG = "lives_too_long", "it is valid for longer than is accepted here"
    AGE_BAND = "age_band", "its age band is not one of this region"
    SUBJECT = "other_subject", "its user is not that of the token with which the client signs in"
    DENIED = "denied", "it is denied here"
    EARLY = "issued_too_early", "it was issued before the time from which tokens are accepted"
    UNCHECKED = "unchecked", "the issuer's keys cannot be read at the moment"
    """The issuer's keys cannot be read right now. The client did nothing wrong."""


class ClaimRefused(Exception):
    """A claim or a token is not valid. `problem` is the kind of reason. It contains nothing of the token."""

    def __init__(self, problem: ClaimProblem) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class ClaimReport:
    """The content of a request's claim, or why it is rejected."""

    territory: str | None = None
    problem: ClaimProblem | None = None
    subject: str | None = field(default=None, compare=False, repr=False)
    """The user whom the claim is about. It is not evidence of a location, so it does not take part in comparisons, and
    a remembered location never belongs to one user."""
    preferences: Preferences | None = field(default=None, repr=False)
    """The user's preferences, as far as they are valid."""
    consents: frozenset[str] = frozenset()
    """The recipients to which the user has agreed."""
    age_band: str | None = None
    """The age band of the user. None if the claim names none, or if it is not read."""
    issuer: str = field(default="", compare=False, repr=False)
    """The name of the issuer in the name of the user (`gateway.policy.client_users`)."""


class AddressReport(Value, frozen=True):
    """The result of looking up the client's address: its country, and the subdivision if the database has one."""

    country: str = ""
    part: str = ""
    note: str = ""
    """Why there is no country."""
    hidden: bool = False
    """The address hides the client (Tor, or an anonymous proxy)."""
    doubtful: bool = False
    """There should be exactly one address, and there is none or there are several."""


class Question:
    """A report of a signal that needs a lookup. `gateway.service.location` puts an answer in its place."""

    __slots__ = ()


class Reports(Value, frozen=True):
    """The reports of all signals on one request, in the order of their names. Use `reports_of` to make one.

    A signal that reported nothing has no entry. With the client and the config version, the reports decide the
    location.
    """

    by_signal: tuple[tuple[str, Hashable], ...] = ()

    def get(self, signal: str) -> Hashable | None:
        """Return the report of a signal, or None."""
        return next((report for name, report in self.by_signal if name == signal), None)

    def with_report(self, signal: str, report: Hashable | None) -> Reports:
        """Return a copy in which a signal has this report."""
        return reports_of({**dict(self.by_signal), signal: report})


def reports_of(reports: Mapping[str, Hashable | None]) -> Reports:
    """Return the reports of these signals. None means that a signal reported nothing."""
    return Reports(tuple((name, reports[name]) for name in sorted(reports) if reports[name] is not None))
