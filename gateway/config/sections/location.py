"""How a caller's place is decided: the shape of `location`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.scalars import Age, HeaderName, Visible, Words
from gateway.config.sections.base import Section
from gateway.model.edge import Signal

__all__ = ["ClaimSection", "EdgeSecretSection", "EdgeSection", "GeoIpSection", "LocationSection"]


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


class GeoIpSection(Section):
    """A database of addresses, a MaxMind DB file (.mmdb)."""

    path: str = Field(description="The whole path of the file; it is opened again when it is replaced.")
    max_age: Age = Field("30d", description="From this age on, by the file's own date, it isn't asked any more.")


class LocationSection(Section):
    """How a caller's place is decided."""

    signals: Annotated[list[Signal], Field(min_length=1)] = Field(
        ["claim", "api_key", "assertion", "edge_header", "geoip"],
        description="What may tell the place; the first names the winner where several agree.",
    )
    edges: list[EdgeSection] = Field([], description="The peers whose country header is believed.")
    claim: ClaimSection | None = Field(None, description="Signed claims: whose are believed, and by which keys.")
    geoip: GeoIpSection | None = Field(None, description="The database that tells an address's country.")
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
