"""A source of tokens that requests carry in place of a key: what a deployment knows of it, and its last token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from providers.auth import Secret
from providers.catalogue.prices import Retirement
from providers.territories import Places
from providers.value import Value

TokenState: TypeAlias = Literal["ok", "failing", "none"]
"""Whether the last exchange succeeded, failed while the token before is valid, or there is no token."""
_LEAST_LEFT_S = 30.0
_SAME_S = 2.0


class TokenPlace(Value, frozen=True):
    """Where a host is that a sign-in calls."""

    host: str
    """The name of the host, or the metadata server."""
    places: Places
    fix: str = ""
    """The other way to configure it, in words."""
    is_accepted: bool = False
    """The operator accepts that it may be anywhere."""
    end: Retirement | None = None
    """The announced end of the host, or None if none is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSource:
    """A source of tokens, as those see it that use a token."""

    name: str
    kind: str
    places: tuple[TokenPlace, ...]
    """Where the hosts are that it calls, with those of its source."""
    is_aws: bool = False
    """Whether its token signs requests to AWS."""
    source: str | None = None
    """The name of the sign-in whose token is the subject, or None."""
    header: Literal["authorization", "proxy-authorization"] = "authorization"
    missing: tuple[str, ...] = ()
    """The sources of values that are not set."""
    key: Secret = field(init=False, repr=False)
    """Stands for its token where keys are compared: it is one key, whatever its token."""
    id: str = field(init=False, repr=False)
    """Its name, and a digest of what determines its tokens. A token is kept for this id and not for the name, so a
    source that was changed never sends its previous token."""

    def __str__(self) -> str:
        """Return its name, and where its token hosts are. It shows no value that may be secret."""
        hosts = [f"{it.host} in {it.places}{', accepted' if it.is_accepted else ''}" for it in self.places]
        return f"{self.name} ({self.kind}{' at ' if hosts else ''}{'; '.join(hosts)})"

    def facts(self) -> dict[str, object]:
        """Return it as JSON data. `global_hosts`: those that may be anywhere, which the operator accepts."""
        return {"name": self.name, "kind": self.kind, "global_hosts": [it.host for it in self.places if it.is_accepted]}

    @property
    def needed(self) -> tuple[str, ...]:
        """The names of the sign-ins whose tokens it takes to get one: its source, and itself."""
        return (self.source, self.name) if self.source is not None else (self.name,)

    def outside(self, boundary: Places) -> TokenPlace | None:
        """Return the first host that is not in the boundary, or None."""
        return next((it for it in self.places if not it.is_accepted and not it.places.within(boundary)), None)


def key_of(sign_in_id: str) -> Secret:
    """Return what stands for the token of a sign-in where keys are compared. Texts are searched for keys: no words."""
    return Secret(sign_in_id.rpartition(" ")[2])


class HeldToken(Value, frozen=True):
    """A token that was issued, with its lifetime when it arrived.

    Its end is in monotonic seconds, or in Unix seconds if it is absolute.
    """

    secret: Secret
    ends_at: float
    is_absolute: bool
    lifetime_s: float

    def left_s(self, monotonic_s: float, unix_s: float) -> float:
        """Return how many seconds it is valid."""
        return self.ends_at - (unix_s if self.is_absolute else monotonic_s)

    def ends_with(self, other: HeldToken) -> bool:
        """Return whether the other token is the same or has its end, as one that a metadata server gives again."""
        has_its_end = self.is_absolute == other.is_absolute and abs(self.ends_at - other.ends_at) < _SAME_S
        return has_its_end or self.secret == other.secret

    def is_usable(self, monotonic_s: float, unix_s: float) -> bool:
        """Return whether enough of its lifetime is left for a request."""
        return self.left_s(monotonic_s, unix_s) >= min(_LEAST_LEFT_S, self.lifetime_s / 4)


class TokenNote(Value, frozen=True):
    """The result of the last exchange of a sign-in: a token, which may be that of an earlier one, or why it failed."""

    token: HeldToken | None = None
    error: str = ""

    def usable(self, monotonic_s: float, unix_s: float) -> HeldToken | None:
        """Return the token if enough of its lifetime is left for a request."""
        return self.token if self.token is not None and self.token.is_usable(monotonic_s, unix_s) else None


NO_NOTE = TokenNote()


class TokenStatus(Value, frozen=True):
    """The state of a source for operators. Its token is valid for `seconds_left`, or there is none.

    `remedy` is what to do about the error.
    """

    name: str
    state: TokenState
    seconds_left: int | None
    error: str
    remedy: str
    deployments: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """Return it as JSON data."""
        return {
            "state": self.state,
            "seconds_left": self.seconds_left,
            "error": self.error or None,
            "deployments": [*self.deployments],
        }
