"""The shape of `redactions`, and of the key `redact` of regions, deployments and barriers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gateway.config.field_types import Name, Section
from gateway.config.schema.file import FeatureKey
from gateway.features.redaction.model import BUILT_IN, DEFAULT_KINDS, Arguments, Media
from gateway.model.section import Sensitive, UnitError


def _redact(value: object) -> object:
    """Return the name of a redaction, or False."""
    if value is False or isinstance(value, str):
        return value
    raise UnitError("must be the name of a redaction, or false", "write the name of an entry of `redactions`")


Redact = Annotated[Name | Literal[False] | None, BeforeValidator(_redact, json_schema_input_type=Name | Literal[False])]


def _countries(value: object) -> object:
    """Return a list of countries. `"*"` alone is one, too."""
    return [value] if value == "*" else value


Countries = Annotated[list[str], BeforeValidator(_countries, json_schema_input_type=list[str] | Literal["*"])]


class RedactionSection(Section):
    """A named set of rules: what a deployment gets placeholders for in place of the values."""

    kinds: list[str] = Field(
        list(DEFAULT_KINDS), description=f"The kinds of values that are found: {', '.join(BUILT_IN)}."
    )
    countries: Countries = Field(
        [],
        description="The countries whose identity, tax and insurance numbers (`id`) and whose own ways to write a "
        'phone number are found: ISO codes, or "*" for all that are known.',
    )
    terms: Annotated[list[str], Sensitive("`terms`", is_secret=False)] = Field(
        [], description="Words of the company, in any case, or ${file:/path} of a file with one a line.", repr=False
    )
    patterns: dict[str, str] = Field(
        {},
        description="Own patterns in RE2 syntax by the kind of their placeholders: 2 to 12 capital letters without Q "
        "and Z. A group is then the value.",
    )
    media: Media = Field(
        "refuse",
        description="Images, audio, files and URLs of them: `refuse` skips the step, `pass` sends them as they are.",
    )
    arguments: Arguments = Field(
        "restore",
        description="Arguments of tool calls in answers: `restore` puts the values back, `keep` leaves placeholders "
        "for tools that look values up themselves.",
    )


REDACTION_KEYS = (
    FeatureKey(
        "",
        "redactions",
        dict[Name, RedactionSection],
        Field({}, description="The rules by which deployments get placeholders in place of values, by name."),
    ),
    FeatureKey(
        "regions",
        "redact",
        Redact,
        Field(
            None,
            description="The redaction of all that its requests send to any deployment, but those with "
            "`redact: false`.",
        ),
    ),
    FeatureKey(
        "deployments",
        "redact",
        Redact,
        Field(
            None,
            description="The redaction of all that it is sent. `false`: it gets the values, also where the region "
            "has one.",
        ),
    ),
)
