"""Who may call, from where, and how much: the shape of `clients` and `cors`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.scalars import KeyHash, Origin, Words
from gateway.config.sections.base import Section

__all__ = ["ClientSection", "CorsSection", "LimitsSection"]


class LimitsSection(Section):
    """How much a client may ask, of all workers together."""

    rpm: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Chat requests a minute: they come back evenly, and up to a minute's worth is saved up.",
    )
    concurrent: int | None = Field(
        None, ge=1, le=1_000_000, description="Chat requests that run at the same time, open streams among them."
    )


class ClientSection(Section):
    """Who may call."""

    keys: Annotated[list[KeyHash], Field(min_length=1)] = Field(
        description="The SHA-256 of each of its keys (sha256:…); `gateway key new` makes one."
    )
    assistants: Words | None = Field(None, description="Whom it may ask; every assistant if left out.")
    region: str | None = Field(None, description="Binds every request of its keys to this region.")
    may_assert: list[Literal["territory", "user", "consent"]] = Field(
        [], description="What a trusted backend may say about the person it calls for."
    )
    limits: LimitsSection | None = Field(None, description="How much it may ask; no limit if left out.")


class CorsSection(Section):
    """Which web pages may call from a browser."""

    origins: Annotated[list[Origin], Field(min_length=1)] = Field(
        description='Their origins, such as https://app.example, or "*" for every page on the web.'
    )
