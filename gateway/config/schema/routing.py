"""Shape of `assistants`, `deployments` and `resilience`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from gateway.config.field_types import (
    FieldName,
    HeaderName,
    HedgeAfter,
    Name,
    OneOrMore,
    ProjectName,
    RouteStep,
    Section,
    Stages,
    Visible,
)
from gateway.model.approval import Approval
from gateway.model.schedule import StopRule
from gateway.model.units import Line, Seconds, Share


class HedgeSection(Section):
    """When a second attempt is made beside one that is slow."""

    after: HedgeAfter = Field(
        "p95",
        validate_default=True,
        description="p50 to p99: when so many in a hundred of the deployment's answers would have begun; or a time.",
    )


class ScheduleSection(Section):
    """How the share of one member of a route's weighted first step is raised."""

    candidate: str = Field(description="The deployment whose share is raised.")
    steps: Stages = Field(description="Its share of the people, and for how long, in stages.")
    stop_on: StopRule = Field(StopRule(), description="When it is taken back: its share is then 0.")


class ShadowSection(Section):
    """A deployment that gets a share of the answered requests too; nobody sees what it says."""

    deployment: str = Field(description="Who is asked.")
    share: Share = Field("1%", validate_default=True, description="The share of the requests.")
    keep_text: bool = Field(
        False,
        description="Whether prompts, its answers and those of the clients are kept. The cell must stand inside the "
        "region's boundary.",
    )


class AssistantSection(Section):
    """What a client asks for in `model`."""

    aliases: list[Visible] = Field(
        [], description="Other names for it, such as gpt-4o, so that an app has only its base URL to change."
    )
    routes: dict[Name, list[RouteStep]] = Field(
        description="For each region the deployments to ask, in order: the first, then its fallbacks. In the place of "
        "one, {one: 95, other: 5} gives each person one of several, by weight."
    )
    schedules: dict[Name, ScheduleSection] = Field(
        {}, description="For each region how the share of a candidate is raised, and taken back if it does badly."
    )
    shadow: dict[Name, ShadowSection] = Field(
        {}, description="For each region a deployment that gets a share of the requests too, after the answer."
    )
    reveal_model: bool = Field(True, description="false hides from clients which model answers: they see this name.")
    resume: bool = Field(
        False,
        description="A text answer that breaks off in mid-stream is continued by the next step of the route, once.",
    )
    hedge: HedgeSection | None = Field(
        None,
        description="Makes a second attempt beside a first one that is slow: at the next step of the route, or with "
        "another key. The first answer counts, the other attempt is cancelled. None if left out.",
    )


class ConsentSection(Section):
    """What the person must have agreed to before the deployment gets a prompt."""

    mode: Literal["per_request", "standing"] = Field(
        description="per_request: a yes to this very request; standing: that, or one given once for all."
    )
    on_missing: Literal["refuse", "skip"] = Field(
        "refuse",
        description="Without it, where this step would be the first: refuse the request and say how to agree, or skip "
        "to the next step. A later step is left out in both cases.",
    )
    recipient: Line | None = Field(
        None, description="Whom the person agrees to, by the name that it is shown; the provider's if left out."
    )


class ConcurrencySection(Section):
    """How many calls of a deployment run at the same time, and how many requests wait for a place."""

    limit: int | None = Field(None, ge=1, le=1_000_000, description="Calls at the same time, over all workers.")
    queue: int = Field(20, ge=0, le=100_000, description="How many requests may wait for a place, over all workers.")
    wait_s: Seconds = Field(
        "2s",
        alias="wait",
        validate_default=True,
        description="How long one waits at most, before the next step is asked.",
    )


def _number_is_limit(value: object) -> object:
    """A number alone is a limit."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"limit": value}
    if isinstance(value, dict | ConcurrencySection):
        return value
    message = {"message": "must be a number of calls, or a mapping of its keys", "hint": "write 50, or {limit: 50}"}
    raise PydanticCustomError("config", "{message}", message)


_Concurrency = Annotated[
    ConcurrencySection | None,
    BeforeValidator(_number_is_limit, json_schema_input_type=ConcurrencySection | Annotated[int, Field(ge=1)]),
]


class DeploymentSection(Section):
    """One model of one provider at one site, with its credentials."""

    provider: str = Field(description="The adapter that speaks its wire format, such as `openai-compatible`.")
    model: Visible = Field(description="The model, in the provider's own words.")
    endpoint: str | None = Field(
        None,
        description="A site that the provider is known to have, or a URL; may be left out where there is one site. "
        "`simulator` in demo mode.",
    )
    project: ProjectName | None = Field(
        None,
        description="The cloud project that pays and is a part of the path, where the site's provider wants one; or "
        "the workspace that is a part of its host.",
    )
    simulates: str | None = Field(None, description="With `endpoint: simulator`: the site whose facts it takes.")
    stores: OneOrMore | None = Field(None, description="With a URL: where content is kept; `any` if unknown.")
    processes: OneOrMore | None = Field(None, description="With a URL: where it is computed on; `any` if unknown.")
    available: OneOrMore | None = Field(
        None, description="The territories whose people it may answer, where the vendor publishes no list."
    )
    api_key: OneOrMore | None = Field(
        None,
        description="${NAME} of an environment variable, ${file:/path} of a file, or a list used in turn.",
        repr=False,
    )
    headers: dict[HeaderName, str] = Field(
        {},
        description="Headers that it is sent with each call, of those that its provider is known to have: a value "
        "each, or ${NAME} or ${file:/path} for all of one.",
        repr=False,
    )
    attests: list[str] = Field(
        [], description="What the site's promise requires and your contract has, such as zdr (zero data retention)."
    )
    capabilities: list[str] | None = Field(
        None, description="What the model can do, instead of what is known of it: tools, vision, json_schema, …"
    )
    unsupported: Literal["drop", "refuse"] = Field(
        "drop", description="A parameter that it can't express is dropped and named in a header, or refused."
    )
    passthrough: list[FieldName] = Field([], description="Unknown request fields that are let through to it.")
    stream_options: bool = Field(
        True,
        description="false never asks it for a stream's usage, where its server refuses the field `stream_options`: "
        "what a stream used is then known only if it tells unasked.",
    )
    fold: bool | None = Field(
        None,
        description="A request for one JSON is asked as a stream and put together here, so that silence is noticed: "
        "true is always, false is never. Left out: where the route has a next step, and it has answered nobody lately.",
    )
    first_token_s: Seconds | None = Field(
        None,
        alias="first_token",
        description="To the first real event of an attempt, where a next step exists, instead of "
        "`resilience.first_token` and of what is known of the model.",
    )
    approvals: list[Approval] = Field([], description="What authorities let it do, in which regions.")
    consent: ConsentSection | None = Field(
        None, description="What the person must have agreed to; nothing if left out."
    )
    identity: Literal["strip", "hash", "pass"] = Field(
        "strip",
        description="What becomes of fields that say who asks (user, safety_identifier, prompt_cache_key, metadata): "
        "strip, hash (a pseudonym of the first three, made with `secrets.identity`), or pass.",
    )
    concurrency: _Concurrency = Field(
        None, description="How many of its calls run at the same time: a number, or its keys; no bound if left out."
    )
    enabled: bool = Field(True, description="false takes it out of every route at once.")
    insecure: bool = Field(False, description="Allows http:// to another machine: prompts and keys in clear text.")
