"""Shape of `location`, `cell` and `regions`, with their labels and profiles."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model

from gateway.config import field_types as types
from gateway.config.problems import choice_hint, quoted
from gateway.model.age import UseLimits
from gateway.model.moderation import ModerationRules
from gateway.model.refusal_reason import REASON_BY_CODE, RefusalReason
from gateway.model.region_text import Show
from gateway.model.section import FileForm, Sensitive, UnitError
from gateway.model.units import DailyHours, LifetimeSeconds, Line
from gateway.policy.location import SIGNALS

Texts = Annotated[dict[types.LanguageTag, Line], Field(min_length=1)]


class EdgeSecretSection(types.Section):
    """The secret with which an edge proves that a request came through it."""

    header: types.HeaderName = Field(description="The header that the edge adds.")
    value: Annotated[types.OneOrTwo, Sensitive("an edge's secret")] = Field(
        description="Its value: ${NAME} or ${file:/path}; a list of two while it is replaced.", repr=False
    )


class EdgeSection(types.Section):
    """A trusted peer that reports in a header from which country or address a request comes."""

    networks: types.Words = Field(
        alias="from", description="The networks of the peer (CIDR). The headers of other peers are not read."
    )
    country: types.HeaderName | None = Field(
        None, description="The header with the country, such as CF-IPCountry. Optional next to `client_ip`."
    )
    subdivision: types.HeaderName | None = Field(
        None,
        description="The header with the part of the country (ISO 3166-2), such as CloudFront-Viewer-Country-Region.",
    )
    client_ip: types.HeaderName | None = Field(
        None,
        description="The header with the client's IP address, for `geoip`: CF-Connecting-IP, "
        "CloudFront-Viewer-Address, X-Forwarded-For, Forwarded, …",
    )
    secret: EdgeSecretSection | None = Field(None, description="The secret with which the edge proves its identity.")


def _one_of(names: Collection[str], kind: str) -> FileForm:
    """Return the form of a value that is one of these names."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise UnitError(f"unknown {kind} {quoted(str(value))}", choice_hint(str(value), names))

    return FileForm(parse, {"type": "string", "enum": [*names]})


SignalName = Annotated[str, _one_of(SIGNALS.keys(), "signal")]
ErrorCode = Annotated[str, _one_of(REASON_BY_CODE.keys(), "error code")]
Reason = Annotated[str, _one_of([str(reason) for reason in RefusalReason], "reason")]


class _LocationKeys(types.Section):
    """How the location of a caller is decided."""

    signals: Annotated[list[SignalName], Field(min_length=1)] = Field(
        list(SIGNALS),
        description="The signals that may locate a caller, strongest first. If several agree, the first one is "
        "reported.",
    )
    edges: list[EdgeSection] = Field([], description="The trusted peers that report a country or an address.")
    conflict: Literal["strictest", "refuse"] = Field(
        "strictest",
        description="If signals give different regions: use the region whose boundary lies within all the others, "
        "or refuse the request.",
    )
    accept_country_only: list[str] = Field(
        [],
        description="Countries with a blocked part, or a part in another region, that are accepted if a signal does "
        "not give the part. Other such countries get the strictest of these regions, or are refused.",
    )
    unknown: str = Field("refuse", description="If no signal gives a region: `refuse`, or the region to use.")


# Each signal states its own section, so that a new one needs no change here.
if TYPE_CHECKING:
    LocationSection = _LocationKeys
else:
    LocationSection = create_model(
        "LocationSection",
        __base__=_LocationKeys,
        __doc__=_LocationKeys.__doc__,
        **{
            signal.section: (signal.settings.keys | None, Field(None, description=signal.settings.meaning))
            for signal in SIGNALS.values()
            if signal.settings is not None
        },
    )


class LabelSection(types.Section):
    """A known label with options, or a label of your own."""

    name: types.Name = Field(description="A known label, such as cn-gb45438, or a name of your own.")
    text: Texts | None = Field(
        None, description="Its text by language; the first is the default. A known label brings its own text."
    )
    earlier: list[Line] = Field(
        [], description="Its former texts. They are also removed from the history of a request."
    )
    show: Show | None = Field(
        None,
        description="Where its text appears: before the text of each answer, before the first answer of a "
        "conversation, or in `x_gateway.labels` only.",
    )
    producer: types.ProducerCode | None = Field(
        None, description="For cn-gb45438: the code of the service provider, for the AIGC object."
    )
    repeat: LifetimeSeconds | None = Field(
        None,
        description="With `show: first_turn`: in a session of a user, it is shown again after so long: 10m or more. "
        "Default: never.",
    )
    repeat_text: Texts | None = Field(
        None, description="Its text by language where it is shown again. Default: that of `text`."
    )
    audio: Literal["file", "required", "none"] | None = Field(
        None,
        description="Speech: put its data into the file where the format has a place for them, require such a format, "
        "or do not. Default: `file` for known labels, `none` for your own.",
    )


def labels_of(label: type[LabelSection]) -> Any:
    """Return the type of a list of labels, each of which may be a name alone."""
    return Annotated[list[label], BeforeValidator(_named, json_schema_input_type=list[types.Name | label])]  # type: ignore[valid-type]


def _named(value: object) -> object:
    """Read a name alone as a label without options."""
    return [{"name": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


if TYPE_CHECKING:
    Labels = list[LabelSection]
else:
    Labels = labels_of(LabelSection)


class ProfileSection(types.Section):
    """How an assistant speaks in this region: a system message before all other messages."""

    locale: types.LanguageTag = Field(description="The language, with its script and territory, such as zh-Hans-CN.")
    locales: list[types.LanguageTag] = Field(
        [], description="Further locales that a caller's `accept-language` may choose."
    )
    timezone: str | None = Field(None, description="The time zone, such as Asia/Shanghai. Default: not mentioned.")
    units: Literal["metric", "us", "uk"] | None = Field(
        None, description="The system of units. Default: that of the locale's territory."
    )
    currency: types.CurrencyCode | None = Field(
        None, description="The currency (ISO 4217). Default: that of the locale's territory."
    )
    form: Literal["formal", "informal"] | None = Field(None, description="How to address the user.")
    tone: Line | None = Field(None, description="The tone, in one sentence, such as: Be brief and friendly.")
    helplines: dict[types.Name, types.PhoneNumber] | None = Field(
        None, description="Emergency numbers by kind (police, medical, crisis, …), instead of the built-in ones."
    )
    notices: list[Line] = Field([], description="Further sentences for the system message.")


class CellSection(types.Section):
    """This installation of the gateway."""

    territory: str = Field(description="Where the gateway itself runs: an ISO 3166 code such as DE.")
    name: types.CellName | None = Field(
        None, description="Its name, a part of its API keys. Default: its territory in lower case."
    )
    serves: types.Words | None = Field(None, description="The regions that it serves. Default: all.")
    homes: dict[types.Name, str] = Field(
        {}, description="For each region that it does not serve: the https URL of the cell that serves it."
    )


class AgeBandSection(types.Section):
    """The rules for users of one age."""

    refuse: bool = Field(False, description="true: no request is answered.")
    tools: bool = Field(True, description="false: requests with tools are refused.")
    choices: bool = Field(True, description="false: the user's preferred choice has no effect.")
    hand_off: bool = Field(True, description="false: the barrier of a route (`hand_off`) stays closed.")
    transcription: bool = Field(True, description="false: no audio of its users is written down.")
    speech: bool = Field(True, description="false: its users get no speech.")
    intent: types.Name | None = Field(None, description="The intent of each chat. Default: that of the request.")
    instructions: Annotated[str, Field(min_length=1, max_length=4000)] | None = Field(
        None, description="Instructions for the model, in a system message after the region's profile."
    )
    hours: DailyHours | None = Field(
        None, description="The daily hours in which requests are answered. They may go over midnight. Default: all."
    )
    timezone: types.TimeZone | None = Field(None, description="The time zone of `hours`.")
    use: UseLimits | None = Field(None, description="How long its users may chat. Default: no limit.")
    repeat: LifetimeSeconds | None = Field(
        None, description="Its users see the label with `repeat` again after so long: 10m or more. Default: as all."
    )


class RegionSection(types.Section):
    """A group of territories under one policy."""

    territories: types.Words = Field(
        description='The territories of its callers: ISO 3166 codes, groups such as "@EEA", or "*" for all others.'
    )
    boundary: types.Words = Field(
        description='The territories where its prompts may be stored and processed: codes, groups, "*", and exclusions '
        'such as "!CN".'
    )
    transit: types.Words | None = Field(
        None, description="The territory of this cell, to accept that it lies outside the boundary."
    )
    approvals: Literal["none", "required"] = Field(
        "none", description="required: only a deployment with a currently valid approval for this region may answer."
    )
    labels: Labels = Field([], description="Labels of its answers: cn-gb45438, eu-art50, … or labels of your own.")
    profile: ProfileSection | None = Field(None, description="How an assistant speaks to its users.")
    refusals: dict[ErrorCode, Texts] | None = Field(
        None, description="The texts for users whose request is refused, by error code and language."
    )
    moderation: ModerationRules | None = Field(None, description="The judges of its chats. Default: no judge.")
    age_bands: dict[types.Name, AgeBandSection] | None = Field(
        None, description="Its rules for minors: the age bands that a signed claim may name. Default: none."
    )
    age_missing: types.Name | None = Field(
        None, description="If no claim names an age band: `adult` (no rules), `refuse`, or a band. Required."
    )
    protected: bool = Field(
        False,
        description="true: a change of this region needs a signature with one of `admin_keys` on the plan of the "
        "change.",
    )
    websocket: bool = Field(True, description="false: the Responses API is not offered over WebSocket here.")
    log_prompts: bool = Field(
        False,
        description="true: the text of its requests is written to the log. The gateway must run inside the boundary.",
    )

    @property
    def judges(self) -> list[str]:
        """The names of all deployments that judge its chats."""
        rules = self.moderation
        moderation = [*rules.input_names, *rules.output_names] if rules is not None else []
        return moderation + [name for _, section in self for name in getattr(section, "judges", ())]
