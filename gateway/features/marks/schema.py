"""The shape of `marks`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.config.field_types import AdminKey, DocumentUrl, Section
from gateway.model.section import Sensitive


class MarksSection(Section):
    """The signed marks of answers. Labels with `mark: signed` have one for each text."""

    issuer: DocumentUrl = Field(
        description="The https URL by which marks name who gave out a text, such as https://assistant.example.com."
    )
    key: Annotated[str, Sensitive("`marks.key`")] = Field(
        description="The private Ed25519 key in PEM: ${file:/path}, the same for all instances of a cell. `gateway key "
        "new --ed25519 FILE` makes one.",
        repr=False,
    )
    former: list[AdminKey] = Field(
        [], max_length=16, description="Former public keys, which stay published so that their marks stay valid."
    )
