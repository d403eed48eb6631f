"""What a person writes in a catalogue file of their own: its shape, a description for every field, its JSON Schema.

Only shapes are judged here. Whether a provider or a quirk of that name exists is the compiler's.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from gateway.config.scalars import CurrencyCode, Day, FormatVersion, Line, Visible
from gateway.config.schema import schema_of
from gateway.config.sections.base import Section
from providers.catalogue.offers import micros_of

__all__ = ["AboveSection", "CatalogueFileSection", "OwnModelSection", "PriceSection", "catalogue_schema_json"]

_MOST_TOKENS = 1_000_000_000


def _amount(value: object) -> int:
    micros = micros_of(value)
    if micros is not None:
        return micros
    hint = "write it without quotes" if isinstance(value, str) else "such as 2.50"
    message = "must be an amount for a million tokens: 0 or more, at most a million, with at most six decimals"
    raise PydanticCustomError("config", "{message}", {"message": message, "hint": hint})


def _ascending(above: list[AboveSection]) -> list[AboveSection]:
    bounds = [one.prompt_tokens for one in above]
    if bounds == sorted(set(bounds)):
        return above
    words = {"message": "must name each number of tokens once, in rising order", "hint": "sort them"}
    raise PydanticCustomError("config", "{message}", words)


Amount = Annotated[int, BeforeValidator(_amount, json_schema_input_type=Annotated[float, Field(ge=0, le=1_000_000)])]
_Tokens = Annotated[int, Field(ge=1, le=_MOST_TOKENS)]


class AboveSection(Section):
    """What a request costs whose prompt is long: all of it."""

    prompt_tokens: _Tokens = Field(description="It holds for prompts of more tokens than this.")
    input: Amount = Field(description="A million tokens of the prompt.")
    output: Amount = Field(description="A million tokens of the answer, reasoning among them.")
    cached_input: Amount | None = Field(None, description="A million tokens that the provider had in its cache.")
    cache_write: Amount | None = Field(None, description="A million tokens that the provider wrote to its cache.")


class PriceSection(Section):
    """What the model costs, by your contract. It takes the place of the whole price that is known."""

    input: Amount = Field(description="A million tokens of the prompt.")
    output: Amount = Field(description="A million tokens of the answer, reasoning among them.")
    cached_input: Amount | None = Field(
        None,
        description="A million tokens of the prompt that the provider had in its cache; as other input if left out.",
    )
    cache_write: Amount | None = Field(
        None,
        description="A million tokens of the prompt that the provider wrote to its cache; as other input if left out.",
    )
    currency: CurrencyCode = Field(description="Its ISO 4217 code, such as EUR.")
    as_of: Day = Field(description="The day on which you know it.")
    source: Line = Field("your own catalogue", description="Where it stands, such as the number of a contract.")
    above: Annotated[list[AboveSection], AfterValidator(_ascending)] = Field(
        [], description="Dearer rates of long prompts, in rising order."
    )


class OwnModelSection(Section):
    """Facts of a model, or of all that a pattern means. What is left out stays as it is known."""

    capabilities: list[str] | None = Field(
        None, description="All that it can do, in the words of a deployment's `capabilities`."
    )
    without: list[str] | None = Field(None, description="All parameters that it refuses, such as temperature.")
    context_tokens: _Tokens | None = Field(None, description="The longest prompt.")
    output_tokens: _Tokens | None = Field(None, description="The longest answer.")
    efforts: list[Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]] | None = Field(
        None, description="All reasoning efforts that it knows, the weakest first."
    )
    api: str | None = Field(None, description="Which of the provider's paths it lives on, where there are several.")
    thinking: str | None = Field(None, description="Which of the provider's ways to switch thinking is its own.")
    flags: list[str] | None = Field(None, description="All quirks of it, by the names that its adapter knows.")
    price: PriceSection | None = Field(None, description="What it costs.")
    retires_on: Day | None = Field(None, description="From this day on the vendor doesn't answer for it any more.")


class CatalogueFileSection(Section):
    """A catalogue file of yours."""

    version: FormatVersion = Field(description="The version of this format: 1.")
    models: dict[str, dict[Visible, OwnModelSection]] = Field(
        description="By provider: models by name, or by a pattern such as gpt-6*; the closest one counts."
    )


def catalogue_schema_json() -> str:
    """The JSON Schema (draft 2020-12) of a catalogue file, for editors."""
    return schema_of(CatalogueFileSection, "catalogue.yaml")
