"""Shape of `assistants`, `deployments` and `resilience`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gateway.config import field_types as types
from gateway.config.schema.location import Texts
from gateway.model.approval import Approval
from gateway.model.consent import ConsentRule
from gateway.model.deployment import Concurrency, TlsFiles
from gateway.model.schedule import StopRule
from gateway.model.section import Sensitive, UnitError
from gateway.model.served import USES, Use
from gateway.model.units import Seconds


class ScheduleSection(types.Section):
    """How the share of one member of a route's weighted first step is raised."""

    candidate: str = Field(description="The deployment whose share is raised.")
    steps: types.Stages = Field(description="The stages: its share of the users, and the duration of each stage.")
    stop_on: StopRule = Field(StopRule(), description="When the candidate is rolled back: its share becomes 0.")


class IntentSection(types.Section):
    """A kind of chats with routes of its own."""

    tools: list[types.Visible] = Field(
        [],
        description="Patterns of tool names, such as vehicle_*. A chat with such a tool is of this kind, unless a "
        "trusted client states another one in `x-gateway-intent`.",
    )


class ChoiceSection(types.Section):
    """Deployments that a user may prefer, where the region allows them."""

    deployments: types.Words = Field(
        description="The deployments. A preference changes the order of a route, and adds none."
    )
    title: Texts = Field(description="The name for the user, by language.")


class AssistantSection(types.Section):
    """An assistant: the name that a client sends in `model`, and its routes."""

    aliases: list[types.Visible] = Field(
        [],
        description="Other names for it, such as gpt-4o, so that an app only has to change its base URL. A name that "
        "ends with `*`, such as claude-*, stands for all names with that beginning; these are not listed.",
    )
    routes: dict[types.Name, types.RegionRoutes] = Field(
        {},
        description="For each region the deployments to call, in order: the first one, then its fallbacks. A weighted "
        "step such as {one: 95, other: 5} assigns each user to one of several deployments. {hand_off: {when: [...], "
        "share: ...}} is a barrier: the steps after it get a prompt only for a cause in `when`. With `intents`, a "
        "region may have a mapping from intents to such lists, with `default` for the others.",
    )
    intents: dict[types.Name, IntentSection] = Field(
        {}, description="Kinds of chats with routes of their own, in the order in which they are looked at."
    )
    choices: dict[types.Name, ChoiceSection] = Field(
        {}, description="The names that a user may prefer (`x-gateway-prefer`), and their deployments."
    )
    embeddings: dict[types.Name, list[str]] = Field(
        {},
        description="For each region the deployments that compute embeddings, in order. All of a region have the same "
        "model, because vectors of two models cannot be compared.",
    )
    moderations: dict[types.Name, list[str]] = Field(
        {}, description="For each region the deployments that classify content, in order."
    )
    rerank: dict[types.Name, list[str]] = Field(
        {},
        description="For each region the deployments that score documents for a query, in order. All of a region have "
        "the same model, because scores of two models cannot be compared.",
    )
    decisions: dict[types.Name, list[str]] = Field(
        {},
        description="For each region the deployments that decide about closed questions, in order. The answers of one "
        "request come from one deployment.",
    )
    transcription: dict[types.Name, list[str]] = Field(
        {}, description="For each region the deployments that write audio files down, in order."
    )
    speech: dict[types.Name, list[str]] = Field({}, description="For each region the deployments that speak, in order.")
    schedules: dict[types.Name, ScheduleSection] = Field(
        {}, description="For each region, how the share of a candidate is raised, and when it is rolled back."
    )
    reveal_model: bool = Field(
        True, description="false: clients see the name of the assistant instead of the model that answers."
    )
    resume: bool = Field(
        False,
        description="true: if the stream of a text answer breaks off, the next step of the route continues it, once.",
    )

    @property
    def regions(self) -> tuple[str, ...]:
        """The names of the regions in which it has a route of any use."""
        lists = (self.routes, *(getattr(self, use) for use in USES[1:]))
        return tuple(dict.fromkeys(region for one in lists for region in one))

    def deployments_of(self, use: Use) -> set[str]:
        """Return the names in its routes of a use."""
        if use == "chat":
            routes = [steps for by_intent in self.routes.values() for steps in by_intent.values()]
            return {name for steps in routes for step in steps for name in types.names_in(step)}
        lists: Mapping[str, list[str]] = getattr(self, use)
        return set().union(*lists.values())


def _number_is_threshold(value: object) -> object:
    """Read a number alone as the threshold."""
    return {"at": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class VerdictSection(types.Section):
    """One category of a judge."""

    at: float = Field(ge=0.02, le=0.99, description="The probability from which on the category applies.")
    ask: Annotated[str, Field(min_length=1, max_length=2000)] | None = Field(
        None, description="The statement that is true or false. Default: ours, for a category of OpenAI."
    )


_CATEGORY = r"^[a-z0-9][a-z0-9/_-]{0,63}$"
_Verdict = Annotated[
    VerdictSection, BeforeValidator(_number_is_threshold, json_schema_input_type=float | VerdictSection)
]


def _number_is_limit(value: object) -> object:
    """Read a number alone as the limit."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"limit": value}
    if isinstance(value, dict | Concurrency):
        return value
    raise UnitError("must be a number of calls, or a mapping of its keys", "write 50, or {limit: 50}")


_Concurrency = Annotated[
    Concurrency | None,
    BeforeValidator(_number_is_limit, json_schema_input_type=Concurrency | Annotated[int, Field(ge=1)]),
]


class ProxySection(types.Section):
    """An HTTP proxy on the way to the provider, which opens a tunnel (CONNECT)."""

    # Only its credentials are secret. They must be references.
    url: Annotated[str, Sensitive("the `url` of a proxy", is_secret=False, is_shown=True)] = Field(
        description="Its address. Credentials are references: `http://${USER}:${PASSWORD}@proxy.example.com:3128`.",
        repr=False,
    )
    territory: str = Field(description="Where it is. It sees which server is called and when.")
    inspects: bool = Field(
        False, description="true: it ends TLS and reads what is sent, so it is a place of processing."
    )
    insecure: bool = Field(
        False, description="true allows http:// to another machine, as `insecure` of the deployment does."
    )


class DeploymentSection(types.Section):
    """One model of one provider at one site, with its credentials."""

    provider: str = Field(description="The adapter for its API, such as `openai-compatible`.")
    model: types.Visible = Field(description="The name of the model at the provider.")
    endpoint: str | None = Field(
        None,
        description="A known site of the provider, or a URL. Optional if the provider has one site. `simulator` in "
        "demo mode.",
    )
    project: types.ProjectName | None = Field(
        None,
        description="The cloud project that is billed and is a part of the path, if the provider requires one; or the "
        "workspace that is a part of the host.",
    )
    simulates: str | None = Field(None, description="With `endpoint: simulator`: the site whose facts are used.")
    stores: types.OneOrMore | None = Field(
        None, description="With a URL: the territories where content is stored; `any` if unknown."
    )
    processes: types.OneOrMore | None = Field(
        None, description="With a URL: the territories where content is processed; `any` if unknown."
    )
    available: types.OneOrMore | None = Field(
        None, description="The territories whose users it may answer, if the vendor does not publish a list."
    )
    api_key: Annotated[types.OneOrMore | None, Sensitive("`api_key`")] = Field(
        None,
        description="${NAME} of an environment variable, ${file:/path} of a file, or a list of keys, of which each "
        "conversation keeps one.",
        repr=False,
    )
    sign_in: str | None = Field(
        None, description="In place of `api_key`: the name of the sign-in (`sign_ins`) whose token is sent."
    )
    headers: Annotated[dict[types.HeaderName, str], Sensitive("`headers`")] = Field(
        {},
        description="Headers to send with each call; only headers that the adapter knows are allowed. Each value is a "
        "text, or one whole ${NAME} or ${file:/path}.",
        repr=False,
    )
    attests: list[str] = Field(
        [],
        description="Conditions of the site that your contract fulfils, such as zdr (zero data retention). The facts "
        "of the site are valid only under these conditions.",
    )
    capabilities: list[str] | None = Field(
        None, description="The capabilities of the model, instead of the known ones: tools, vision, json_schema, …"
    )
    structured_output: Literal["native", "emulate"] = Field(
        "native",
        description="emulate: where the model or its site has no JSON schemas (`response_format`), the gateway asks in "
        "words, checks the answer by the schema, and asks once more.",
    )
    voices: Annotated[dict[types.Visible, types.Visible], Field(min_length=1, max_length=64)] = Field(
        {},
        description="For speech: the vendor's voices by the product's names. `*` stands for every other name. Without "
        "it, names go as they are.",
    )
    audio_bytes: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="The largest audio file that a server of one's own takes. Default: the fact of the provider.",
    )
    counts: bool | None = Field(
        None,
        description="With a URL: whether the server counts the tokens of a prompt. Default: false for Claude on "
        "Vertex AI, true for other providers that can count. Elsewhere, tokens are estimated.",
    )
    counts_hidden: bool = Field(
        False,
        description="Whether the provider adds prompts of its own (an agent, a search model), so that its count of the "
        "input is believed however much higher than the request it is. A call may then cost more than its hold.",
    )
    unsupported: Literal["drop", "refuse"] = Field(
        "drop",
        description="A parameter that it does not support: drop it and name it in a response header, or skip the "
        "deployment.",
    )
    passthrough: list[types.FieldName] = Field([], description="Unknown request fields that are passed on to it.")
    stream_options: bool = Field(
        True,
        description="false: never send the field `stream_options`, for a server that rejects it. The usage of a stream "
        "is then known only if the server reports it anyway.",
    )
    inline_thoughts: Literal["tags", "end_tag"] | None = Field(
        None,
        description="Reasoning that the server leaves in the text: `tags` between `<think>` and `</think>` at the "
        "start, `end_tag` from the start to `</think>`. Clients then get it as reasoning.",
    )
    fold: bool | None = Field(
        None,
        description="Call it with streaming for a JSON answer too, and assemble the answer here, so that a silent "
        "provider is noticed: true always, false never. Default: if the route has a next step and this deployment has "
        "not answered recently.",
    )
    first_token_s: Seconds | None = Field(
        None,
        alias="first_token",
        description="Timeout for the first token of an attempt if there is a next step, instead of "
        "`resilience.first_token` and of the known value of the model.",
    )
    approvals: list[Approval] = Field([], description="Its approvals by authorities, with their regions.")
    consent: ConsentRule | None = Field(
        None, description="The consent that the user must give. Default: no consent is needed."
    )
    identity: Literal["strip", "hash", "pass"] = Field(
        "strip",
        description="How to treat fields that identify the user (user, safety_identifier, metadata): strip them, hash "
        "them (send pseudonyms of the first two, made with `secrets.identity`), or pass them on.",
    )
    cache_key: Literal["pseudonym", "strip", "pass"] | None = Field(
        None,
        description="How to treat `prompt_cache_key`, and the session that an agent names in a header, if the provider "
        "has this field: send a pseudonym, strip it, or pass it on. Default: `pseudonym`; `pass` with `identity: "
        "pass`; `strip` where the file has `identity: strip`, and for requests of protected regions.",
    )
    cache: Literal["client", "auto"] = Field(
        "client",
        description="auto: mark the end of the prompt for the cache of a Claude model if the client set no mark, and "
        "the conversation has an answer already or names its session. A first write costs 1.25 times the input.",
    )
    cache_isolation: Literal["client", "user"] | None = Field(
        None,
        description="Keep the prompts of clients, or of their end users, apart in the prefix cache of a server that "
        "knows `cache_salt`: it gets a pseudonym. Default: all share one cache.",
    )
    concurrency: _Concurrency = Field(
        None, description="Limit of its concurrent calls: a number, or a mapping. Default: no limit."
    )
    quota: types.OneOrMore | None = Field(
        None,
        description="The quotas of its account at the vendor (`quotas`), at most three: a name, or a list. A call "
        "needs room in all of them. Default: none.",
    )
    guard: Literal["llama-guard", "qwen3guard"] | None = Field(
        None,
        description="How a guard model in `moderations` answers. Default: by the name of the model, such as "
        "Llama-Guard-3-8B or Qwen3Guard-Gen-4B.",
    )
    verdicts: (
        Annotated[dict[Annotated[str, Field(pattern=_CATEGORY)], _Verdict], Field(min_length=1, max_length=64)] | None
    ) = Field(
        None,
        description="The categories of which a decision model judges texts, each with the threshold of its "
        "probability, or {at: …, ask: …}. Default: it does not judge by thresholds.",
    )
    tls: TlsFiles | None = Field(
        None, description="Own authorities and a client's certificate, for a URL. Their files are watched."
    )
    proxy: ProxySection | None = Field(
        None, description="The HTTP proxy through which it is called. Proxies of the environment are ignored."
    )
    enabled: bool = Field(True, description="false removes it from every route.")
    accept_ended: bool = Field(
        False,
        description="true keeps it in its routes after the day on which the vendor ends its model, site or API: for a "
        "private continuation, or where the vendor has given you more time. The end of its price or approval is then "
        "no error of `gateway check`; where a region requires an approval, it is skipped as before. It does not keep "
        "it from a redirect to another model.",
    )
    insecure: bool = Field(
        False, description="true allows http:// to another machine: prompts and keys are sent in clear text."
    )
