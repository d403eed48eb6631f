"""The signals of a place that need more than a header: how each is set up, and what it said of one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from gateway.model.permit import ServicePermit
from gateway.model.region_text import Preferences
from providers.auth import Secret


@dataclass(frozen=True, slots=True)
class KeyUrl:
    """An issuer's key set at a URL that the config names: leave to ask for it, and the path there."""

    permit: ServicePermit
    path: str


@dataclass(frozen=True, slots=True)
class KeyFile:
    """An issuer's key set in a file."""

    path: str


@dataclass(frozen=True, slots=True)
class SharedKey:
    """A secret that the issuer signs with and the gateway checks with."""

    secret: Secret


KeySource = KeyUrl | KeyFile | SharedKey


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """Whose claims are believed, and how they must be signed. territory, preferences, consents: the members that have
    them."""

    issuer: str
    audience: str
    algorithms: frozenset[str]
    keys: KeySource
    territory: str = "territory"
    preferences: str | None = None
    consents: str = "consents"

    @property
    def identity(self) -> tuple[object, ...]:
        """What is believed of whom, but for the keys, which are renewed now and then."""
        return self.issuer, self.audience, self.algorithms, self.territory, self.consents


@dataclass(frozen=True, slots=True)
class GeoIpRules:
    """A database of addresses, and how old it may be."""

    path: str
    max_age_s: float


class ClaimProblem(StrEnum):
    """Why a claim is not believed: the class that a client, a log and `explain` are told."""

    REPEATED = "repeated"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    KEY = "unknown_key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET = "not_yet_valid"
    UNCHECKED = "unchecked"
    """The issuer's keys can't be read right now: nobody's fault but the issuer's, or ours."""


CLAIM_PROBLEMS = {
    ClaimProblem.REPEATED: "it was sent more than once",
    ClaimProblem.TOO_LARGE: "it is too long",
    ClaimProblem.MALFORMED: "it is no signed token, or a member of it has the wrong type",
    ClaimProblem.ALGORITHM: "it is signed by an algorithm that isn't accepted",
    ClaimProblem.KEY: "it is signed by no key of the issuer",
    ClaimProblem.SIGNATURE: "its signature is wrong",
    ClaimProblem.ISSUER: "it comes from another issuer",
    ClaimProblem.AUDIENCE: "it is meant for somebody else",
    ClaimProblem.EXPIRED: "it has expired",
    ClaimProblem.NOT_YET: "it is not valid yet",
    ClaimProblem.UNCHECKED: "the issuer's keys can't be read right now",
}
"""Why a claim isn't believed, in words."""


@dataclass(frozen=True, slots=True)
class ClaimReport:
    """What the claim of a request was found to be: its territory (None: it names none), or why it isn't believed.

    subject: whom it is about. It tells nothing of the place, so that reports that differ in it alone are equal, and
    what is remembered of a place is no person's.
    preferences: what the person wishes, as far as it has the form of it. consents: to whom it has agreed.
    """

    territory: str | None = None
    problem: ClaimProblem | None = None
    subject: str | None = field(default=None, compare=False, repr=False)
    preferences: Preferences | None = field(default=None, repr=False)
    consents: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AddressReport:
    """What is known of the person's address: its country, and the part of it, if the database has one.

    note: why there is no country. hidden: somebody hides behind the address (Tor, a proxy). doubtful: what should have
    been an address is none, or several, so that nobody knows whose it is.
    """

    country: str = ""
    part: str = ""
    note: str = ""
    hidden: bool = False
    doubtful: bool = False
