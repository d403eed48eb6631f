"""Read the kinds of sign-in from `kinds.toml`, and the places of regions from `regions.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from providers.value import Value

__all__ = ["KINDS", "REGIONS", "SignInKind"]


class SignInKind(Value, frozen=True):
    """The facts of one kind of sign-in. `kinds.toml` explains its fields.

    Attributes:
        environment: The variable that is read for a key that is not written, by key.
        variables: The variables that are read in any case.
        bearer_at_url: Whether it serves providers that take a bearer token at a URL.
    """

    name: str
    providers: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    subject: bool
    environment: Mapping[str, str]
    variables: tuple[str, ...]
    bearer_at_url: bool

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


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("providers.sign_in").joinpath(name).read_text("utf-8"))


def _read() -> dict[str, SignInKind]:
    return {
        name: SignInKind(
            name,
            tuple(row.get("providers", ())),
            tuple(row.get("required", ())),
            tuple(row.get("optional", ())),
            row.get("subject", False),
            row.get("environment", {}),
            tuple(row.get("variables", ())),
            row.get("bearer_at_url", False),
        )
        for name, row in _table("kinds.toml").items()
    }


KINDS: Mapping[str, SignInKind] = _read()
"""The kinds by name."""

REGIONS: Mapping[str, Mapping[str, str]] = _table("regions.toml")
"""The country of each region, by `aws` or `google`."""
