"""Convert the issuers whose tokens LiteLLM accepts (`enable_jwt_auth`) into `token_issuers`.

LiteLLM finds a team by an id in the token, and teams have no equivalent among the clients. So the rules that give a
client are a gap.
"""

from __future__ import annotations

from typing import Any

from gateway.config.problems import KeyPath
from gateway.litellm.files import Gap, SourceReading, Unique

# source: litellm `proxy/auth/handle_jwt.py` (the algorithms that it verifies); docs.litellm.ai (proxy/token_auth,
# proxy/jwt_auth_reference); as_of 2026-11-27
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_SETTINGS: KeyPath = ("general_settings", "litellm_jwtauth")
_VARIABLES = {"issuer": "JWT_ISSUER", "audience": "JWT_AUDIENCE", "jwks": "JWT_PUBLIC_KEY_URL"}
_GAPS = {
    "issuer": "the `iss` of the tokens",
    "audience": "the `aud` of the tokens: the name of this gateway at the issuer",
    "jwks": "the https URL of the issuer's key set",
}


def token_issuers(reading: SourceReading) -> dict[str, Any]:
    """Return the section `token_issuers`, or nothing if LiteLLM takes no tokens."""
    if reading.at("general_settings", "enable_jwt_auth") is not True:
        return {}
    reading.use("general_settings", "enable_jwt_auth")
    listed: list[KeyPath] = [(*_SETTINGS, "issuers", index) for index in reading.entries(*_SETTINGS, "issuers")]
    if not listed:
        places: dict[str, KeyPath] = {key: ("environment_variables", name) for key, name in _VARIABLES.items()}
        return {"issuer": _issuer(reading, places, _SETTINGS)}
    names = Unique()
    keys = {"issuer": "issuer", "audience": "audience", "jwks": "jwks_url"}
    return {
        names.unique("issuer"): _issuer(reading, {ours: (*path, theirs) for ours, theirs in keys.items()}, path)
        for path in listed
    }


def _issuer(reading: SourceReading, places: dict[str, KeyPath], fields: KeyPath) -> dict[str, Any]:
    """Return an issuer. `places` are the paths of its values, `fields` is that of the members that LiteLLM reads."""
    section: dict[str, Any] = {}
    for key, path in places.items():
        text = reading.text(*path) if reading.variable(*path) is None else None
        if text is None or (key == "jwks" and not text.startswith("https://")):
            section[key] = Gap(_GAPS[key])
        else:
            section[key] = text
            reading.use(*path)
    section["algorithms"] = _ALGORITHMS
    if (user := reading.text(*fields, "user_id_jwt_field")) is not None:
        section["user"] = _member(user)
        reading.use(*fields, "user_id_jwt_field")
    team = next((name for name in ("team_id_jwt_field", "team_ids_jwt_field") if reading.text(*fields, name)), None)
    where = _member(reading.text(*fields, team) or "") if team is not None else "groups"
    if team is not None:
        reading.use(*fields, team)
    section["clients"] = Gap(f"a rule for each team, as a list: [{{client: NAME, where: {{{where}: TEAM_ID}}}}]")
    if (scope := reading.text(*_SETTINGS, "admin_jwt_scope")) is not None:
        section["roles"] = [{"role": "admin", "where": {"scope": scope}}]
        reading.use(*_SETTINGS, "admin_jwt_scope")
    return section


def _member(path: str) -> str:
    """Return a member as `token_issuers` names it: a JSON Pointer for LiteLLM's path with dots."""
    steps = [step.replace("~", "~0").replace("/", "~1") for step in path.split(".")]
    return f"/{'/'.join(steps)}" if len(steps) > 1 or "/" in path else path
