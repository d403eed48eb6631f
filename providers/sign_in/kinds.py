"""Read the kinds of sign-in from `kinds.toml`, and the places of regions from `regions.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from providers.catalogue import FactsFile
from providers.value import Value


class SignInKind(Value, frozen=True):
    """The facts of one kind of sign-in. `kinds.toml` explains its fields.

    Attributes:
        environment: The variable that is read for a key that is not written, by key.
        variables: The variables that are read in any case.
        bearer_at_url: Whether it serves providers that take a bearer token at a URL.
    """

    name: str
    providers: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    subject: bool = False
    environment: Mapping[str, str] = {}
    variables: tuple[str, ...] = ()
    bearer_at_url: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """The keys that it may have next to `kind`."""
        subject = ("token_file", "from") if self.subject else ()
        return frozenset((*self.required, *self.optional, *subject, "endpoint"))

    @property
    def is_aws(self) -> bool:
        """Whether it gives AWS credentials, with which requests are signed."""
        return self.name.startswith("aws_")

    @property
    def is_metadata(self) -> bool:
        """Whether its token host is a metadata server, which is where the gateway runs."""
        return not self.subject


_KINDS = FactsFile("providers.sign_in", "kinds")
_REGIONS = FactsFile("providers.sign_in", "regions")


@cache
def sign_in_kinds() -> Mapping[str, SignInKind]:
    """Return the kinds by name."""
    rows: Any = _KINDS.read()
    kinds: dict[str, SignInKind] = {}
    for name, row in rows.items():
        facts: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        kinds[name] = SignInKind(name, **facts)
    return kinds


def sign_in_regions() -> Mapping[str, Mapping[str, str]]:
    """Return the country of each region, by `aws` or `google`."""
    regions: Any = _REGIONS.read()
    return regions  # type: ignore[no-any-return]
