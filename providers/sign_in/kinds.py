"""Read the facts of sign-ins from the TOML files next to this module: kinds, and hosts of the vendors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache

from providers.catalogue import FactsFile
from providers.value import Value, replace

SCOPES = ("https://cognitiveservices.azure.com/.default", "https://ai.azure.com/.default")
"""The scopes of Azure's models, the default first."""


class SignInKind(Value, frozen=True, forbid_unknown_fields=True):
    """The facts of one kind of sign-in. `kinds.toml` explains its fields."""

    name: str = ""
    providers: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    subject: str = ""
    environment: Mapping[str, str] = {}
    """The variable that is read for a key that is not written, by key."""
    variables: tuple[str, ...] = ()
    """The variables that are read in any case."""
    bearer_at_url: bool = False
    """Whether it serves providers that take a bearer token at a URL."""
    metadata: str = ""
    other_metadata: tuple[str, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """The keys that it may have next to `kind`."""
        subject = ("token_file", "from") if self.subject else ()
        return frozenset((*self.required, *self.optional, *subject, "endpoint"))

    @property
    def is_aws(self) -> bool:
        """Whether it gives AWS credentials, with which requests are signed."""
        return self.name.startswith("aws_")


class VendorHost(Value, frozen=True, forbid_unknown_fields=True):
    """A vendor's own token host. `hosts.toml` explains its fields."""

    territory: str = ""
    cloud: str = ""
    accepted: bool = False
    fix: str = ""
    ends: date | None = None
    instead: str = ""
    source: str = ""
    as_of: date | None = None


_KINDS = FactsFile("providers.sign_in", "kinds")
_HOSTS = FactsFile("providers.sign_in", "hosts")


@cache
def sign_in_kinds() -> Mapping[str, SignInKind]:
    return {name: replace(kind, name=name) for name, kind in _KINDS.read_as(dict[str, SignInKind]).items()}


@cache
def vendor_hosts() -> Mapping[str, VendorHost]:
    return _HOSTS.read_as(dict[str, VendorHost])
