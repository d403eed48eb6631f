"""The shape of `regions.X.crisis`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.field_types import LanguageTag, Section
from gateway.model.units import Line

Text = Annotated[str, Field(min_length=1, max_length=2000)]


class CrisisSection(Section):
    """How a chat is answered whose user may be in a crisis."""

    judges: Annotated[list[str], Field(min_length=1)] = Field(
        description="The deployments that judge what a user writes, asked in order if one fails."
    )
    categories: Annotated[list[Line], Field(min_length=1)] = Field(
        description="The categories of verdicts that are a crisis, such as self-harm."
    )
    then: Literal["stop", "answer"] = Field(
        description="`stop`: the crisis text is the answer. `answer`: it stands before the model's answer."
    )
    on_failure: Literal["open", "closed"] = Field(
        description="Without a verdict: `open` lets the request go on, `closed` gives an error."
    )
    text: Annotated[dict[LanguageTag, Text], Field(min_length=1)] | None = Field(
        None, description="The crisis text by language. Default: two sentences with the number of the territory."
    )
    instructions: Annotated[str, Field(min_length=1, max_length=4000)] | None = Field(
        None, description="With `then: answer`: instructions for the model, in a system message."
    )
