"""What a region says by itself, and how an assistant speaks there: the shape of `labels`, `profile`, `refusals`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gateway.config.scalars import CurrencyCode, LanguageTag, Line, Name, PhoneNumber, ProducerCode
from gateway.config.sections.base import Section
from gateway.model.speech import Show

__all__ = ["LabelSection", "Labels", "ProfileSection", "RefusalsSection", "Texts"]

Texts = Annotated[dict[LanguageTag, Line], Field(min_length=1)]


class LabelSection(Section):
    """A label with options, or one of your own."""

    name: Name = Field(description="A label that is known, such as cn-gb45438, or a name of your own.")
    text: Texts | None = Field(
        None, description="Its words by language; the first is for everybody else. A known label has its own."
    )
    earlier: list[Line] = Field([], description="Words that it had before: they are still taken off a history.")
    show: Show | None = Field(
        None,
        description="Where its words stand: before each answer's text, before the first one of a conversation, or in "
        "`x_gateway.labels` only.",
    )
    producer: ProducerCode | None = Field(
        None, description="For cn-gb45438: the code of the provider of the service, for the AIGC object."
    )


def _named(value: object) -> object:
    """A name alone is a label without options."""
    return [{"name": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


Labels = Annotated[list[LabelSection], BeforeValidator(_named, json_schema_input_type=list[Name | LabelSection])]


class ProfileSection(Section):
    """How an assistant speaks: what it is told before everything else."""

    locale: LanguageTag = Field(description="The language, with its script and territory, such as zh-Hans-CN.")
    locales: list[LanguageTag] = Field([], description="Others that a caller's `accept-language` may choose.")
    timezone: str | None = Field(None, description="The time zone, such as Asia/Shanghai; none is told if left out.")
    units: Literal["metric", "us", "uk"] | None = Field(
        None, description="The system of units; that of the locale's territory if left out."
    )
    currency: CurrencyCode | None = Field(
        None, description="The currency (ISO 4217); that of the locale's territory if left out."
    )
    form: Literal["formal", "informal"] | None = Field(None, description="How the user is addressed.")
    tone: Line | None = Field(None, description="The tone, in a sentence, such as: Be brief and friendly.")
    helplines: dict[Name, PhoneNumber] | None = Field(
        None, description="Whom to call, instead of the numbers that are known: police, medical, crisis, …"
    )
    notices: list[Line] = Field([], description="Sentences that the assistant is told besides.")


class RefusalsSection(Section):
    """What a user is told, by error code and language."""

    content_filter: Texts | None = Field(None, description="A provider's safety system refused.")
    region_blocked: Texts | None = Field(None, description="The assistant isn't offered here.")
    no_approved_deployment: Texts | None = Field(None, description="Nobody who may answer is approved today.")
    no_eligible_deployment: Texts | None = Field(None, description="Nobody may answer here.")
