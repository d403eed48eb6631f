"""The users whom a visitor of the demo's page can be: of each age band, or of unknown age.

The demo stands in for the login of the operator: it signs their claims with the shared secret of the configuration.
"""

from __future__ import annotations

import base64
import hmac
import json

from gateway.api.errors import ApiError
from gateway.model.age import AgeRules
from gateway.model.config_version import ConfigVersion
from gateway.model.signed_token import SharedKey
from gateway.policy.location.claim import ClaimRules
from providers.value import Value

_VALID_S = 300
_ALGORITHM = "HS256"


class DemoUser(Value, frozen=True):
    """A user of a region, in its first territory. An empty band stands for a claim without a user and an age."""

    region: str
    territory: str
    band: str


def users_of(config: ConfigVersion) -> list[DemoUser]:
    """Return the users of the regions with rules for minors or for a crisis; none if the demo cannot sign claims."""
    if _signing(config) is None:
        return []
    users: list[DemoUser] = []
    for region in config.regions.values():
        if region.territories.included and (region.parts.of(AgeRules) is not None or region.helps_first):
            ages = region.parts.of(AgeRules)
            bands = [band.name for band in ages.bands] if ages is not None else []
            territory = min(region.territories.included)
            users += [DemoUser(region.name, territory, band) for band in (*bands, "")]
    return users


def claim_of(config: ConfigVersion, region: str, band: str, now_s: float) -> str:
    """Return a signed claim of the user of this region and age band. Raises ApiError if there is none."""
    signing = _signing(config)
    user = next((user for user in users_of(config) if (user.region, user.band) == (region, band)), None)
    if signing is None or user is None:
        raise ApiError("not_found", "the configuration has no such region and age band, or no secret that signs claims")
    rules, secret = signing
    members: dict[str, object] = {"iss": rules.issuer, "aud": rules.audience, rules.territory: user.territory}
    if band and rules.age_band is not None:
        members |= {"sub": f"{band} in {user.territory}", rules.age_band: band}
    parts: tuple[dict[str, object], ...] = {"alg": _ALGORITHM}, members | {"exp": int(now_s) + _VALID_S}
    text = b".".join(_base64(json.dumps(part).encode()) for part in parts)
    return b".".join((text, _base64(hmac.digest(secret.encode(), text, "sha256")))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _signing(config: ConfigVersion) -> tuple[ClaimRules, str] | None:
    """Return the rules of claims, and the secret with which the demo can sign them."""
    rules = config.location.rules.of(ClaimRules)
    if rules is None or _ALGORITHM not in rules.algorithms or not isinstance(rules.keys, SharedKey):
        return None
    return rules, rules.keys.secrets[-1].reveal()
