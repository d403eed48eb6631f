"""Shape of `location`, `cell` and `regions`, with their labels and profiles."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gateway.config.field_types import (
    CurrencyCode,
    HeaderName,
    LanguageTag,
    Name,
    PhoneNumber,
    ProducerCode,
    Section,
    Visible,
    Words,
)
from gateway.model.location_rules import GeoIpRules, SignalName
from gateway.model.region_text import Show
from gateway.model.units import Line

# fmt: off
_Algorithm = Literal[
    "ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "HS256", "HS384", "HS512",
]


# fmt: on


class EdgeSecretSection(Section):
    """What shows that a request came through the edge."""

    header: HeaderName = Field(description="The header that the edge adds.")
    value: str = Field(description="Its value: ${NAME} or ${file:/path}.", repr=False)


class EdgeSection(Section):
    """A trusted peer that says in a header from which country a request comes."""

    networks: Words = Field(alias="from", description="The peer's networks (CIDR); nobody else's header is read.")
    country: HeaderName = Field(description="The header with the country, such as CF-IPCountry.")
    subdivision: HeaderName | None = Field(
        None,
        description="The header with the part of the country (ISO 3166-2), such as CloudFront-Viewer-Country-Region.",
    )
    client_ip: HeaderName | None = Field(
        None,
        description="The header with the person's address, for `geoip`: CF-Connecting-IP, CloudFront-Viewer-Address, "
        "X-Forwarded-For, Forwarded, …",
    )
    secret: EdgeSecretSection | None = Field(None, description="What the edge adds to show that it was the edge.")


class ClaimSection(Section):
    """A signed claim about the person (a JWT in `x-gateway-claim`), and whose are believed."""

    issuer: Visible = Field(description="What must stand in `iss`.")
    audience: Visible = Field(description="What must stand in `aud`: this gateway's name at the issuer.")
    algorithms: Annotated[list[_Algorithm], Field(min_length=1)] = Field(
        description="How it may be signed, such as [ES256]; the token doesn't choose. HS… with `secret` only."
    )
    jwks: str | None = Field(
        None, description="The issuer's public keys: an https URL of a JWK set, or the whole path of a file."
    )
    secret: str | None = Field(
        None, description="Instead of public keys, a shared secret: ${NAME} or ${file:/path}.", repr=False
    )
    territory: Visible = Field("territory", description="The member of the token that has the person's territory.")
    preferences: Visible | None = Field(
        None,
        description="The member with what the person prefers (language, units, time_zone, form); not read if left out.",
    )
    consents: Visible = Field(
        "consents", description="The member with a list of those to whom the person has agreed: names of recipients."
    )


class LocationSection(Section):
    """How a caller's place is decided."""

    signals: Annotated[list[SignalName], Field(min_length=1)] = Field(
        ["claim", "api_key", "assertion", "edge_header", "geoip"],
        description="What may tell the place; the first names the winner where several agree.",
    )
    edges: list[EdgeSection] = Field([], description="The peers whose country header is believed.")
    claim: ClaimSection | None = Field(None, description="Signed claims: whose are believed, and by which keys.")
    geoip: GeoIpRules | None = Field(None, description="The database that tells an address's country.")
    conflict: Literal["strictest", "refuse"] = Field(
        "strictest",
        description="Where signals give different regions: the one whose boundary lies within the others', or none.",
    )
    accept_country_only: list[str] = Field(
        [],
        description="Countries of which a part is blocked or has a region of its own, and that are believed where a "
        "signal doesn't tell the part. Without it they get the strictest of these regions, or are refused.",
    )
    unknown: str = Field("refuse", description="Where no signal gives a region: refuse, or the region to take.")


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


class CellSection(Section):
    """This installation of the gateway."""

    territory: str = Field(description="Where the gateway itself runs: an ISO 3166 code such as DE.")
    serves: Words | None = Field(None, description="The regions that it serves; all of them if left out.")
    homes: dict[Name, str] = Field(
        {}, description="For a region that it doesn't serve: the https URL of the cell that does."
    )


class RegionSection(Section):
    """Territories under one policy."""

    territories: Words = Field(
        description='Whose people it answers: ISO 3166 codes, groups such as "@EEA", or "*" for everywhere else.'
    )
    boundary: Words = Field(
        description='Where their prompts may be stored and processed: codes, groups, "*", exclusions such as "!CN".'
    )
    transit: Words | None = Field(
        None, description="The cell's own territory, where it lies outside the boundary and is accepted."
    )
    approvals: Literal["none", "required"] = Field(
        "none", description="required: only a deployment with an approval for this region that is valid now may answer."
    )
    labels: Labels = Field(
        [], description="What is said on its answers: cn-gb45438, eu-art50, … or labels of your own."
    )
    profile: ProfileSection | None = Field(None, description="How an assistant speaks to its people.")
    refusals: RefusalsSection | None = Field(None, description="What they are told where nobody answers.")
    protected: bool = Field(
        False, description="true: changes only with the signature of one of `admin_keys` on the plan of the change."
    )
    log_prompts: bool = Field(
        False, description="true: the text of its requests goes to the log; the gateway must stand inside the boundary."
    )
