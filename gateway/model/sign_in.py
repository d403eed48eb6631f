"""A sign-in: how the gateway gets tokens of an issuer for deployments."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from gateway.model.held_token import TokenSource, key_of
from gateway.model.permit import ServicePermit
from providers.sign_in.exchange import ExchangeResult
from providers.sign_in.exchanges import SignInTerms
from providers.sign_in.kinds import sign_in_kinds

if TYPE_CHECKING:
    from providers.transport.tls import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn(TokenSource):
    """How the gateway signs in as a workload."""

    terms: SignInTerms
    """The values that an exchange needs."""
    permits: Mapping[str, ServicePermit]
    """The permission to call each host of the terms."""
    links: Mapping[str, Link]
    """How connections to each host are made."""
    token_file: str | None = None
    authorization_file: str | None = None
    """The file that a container's credentials need, or None."""
    read_from: tuple[str, ...] = ()
    """The variables of the environment from which a value was read."""

    def __post_init__(self) -> None:
        files = self.token_file, self.authorization_file
        determined_by = msgspec.json.encode((self.name, self.terms, files, self.source), order="deterministic")
        object.__setattr__(self, "id", f"{self.name} {hashlib.sha256(determined_by).hexdigest()}")
        object.__setattr__(self, "key", key_of(self.id))

    @property
    def is_metadata(self) -> bool:
        """Whether its token host is a metadata server."""
        return bool(sign_in_kinds()[self.kind].metadata)

    @property
    def other_metadata(self) -> tuple[str, ...]:
        """The other addresses at which its metadata server may be."""
        return sign_in_kinds()[self.kind].other_metadata

    def check_line(self) -> tuple[str, str]:
        """Return its line of `gateway check`: its kind, its hosts with their places, and what it reads."""
        hosts = [f"{it.host} ({it.places}{', accepted' if it.is_accepted else ''})" for it in self.places]
        variables = f"; values of {', '.join(self.read_from)}" if self.read_from else ""
        at = ", ".join(hosts) or "the metadata server"
        return f"  {self.name}: ", f"{self.kind} at {at}{variables}"


_REMEDIES: Mapping[str, str] = {
    ExchangeResult.UNREACHABLE: "check the state of the issuer, and the way to it: gateway network-policy lists its "
    "host",
    ExchangeResult.REFUSED: "correct the sign-in, the file with its subject, or its rights at the issuer",
    ExchangeResult.MALFORMED: "check that the host is the issuer, and the clock of this machine",
}


def remedy_for(error: str) -> str:
    """Return what to do about the error of a note, which begins with the result, in words."""
    return _REMEDIES.get(error.partition(":")[0], "see gateway check")
