"""The gateway's own keys: the shape of `secrets`."""

from __future__ import annotations

from pydantic import Field

from gateway.config.sections.base import Section

__all__ = ["SecretsSection"]


class SecretsSection(Section):
    """The gateway's own keys: ${NAME} or ${file:/path}, at least 32 characters each."""

    consent: str | None = Field(
        None,
        description="Signs consent tokens. Gateways with the same one take each other's; without one, a token ends "
        "with the process that gave it.",
        repr=False,
    )
    identity: str | None = Field(
        None, description="Makes the pseudonyms of `identity: hash`; another one makes others.", repr=False
    )
