"""Convert what LiteLLM signs in to a cloud with into sign-ins, and the issuers whose tokens it accepts.

Nothing is guessed: a sign-in whose kind or region the source does not state gets a gap, and a credential that no kind
of sign-in replaces is reported as lost.

The issuers (`enable_jwt_auth`) become `token_issuers`. LiteLLM finds a team by an id in the token, and teams have no
equivalent among the clients. So the rules that give a client are a gap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.config.problems import KeyPath
from gateway.litellm.files import Gap, SourceReading, Unique
from providers.catalogue.sites import cloud_regions
from providers.sign_in.kinds import SCOPES

_NOWHERE: KeyPath = ("?",)
# source: docs.litellm.ai (oidc, providers/azure, providers/bedrock, providers/vertex); litellm
# `llms/azure/common_utils.py` and `secret_managers/main.py`; as_of 2026-11-27
_OIDC = re.compile(r"oidc/([a-z0-9_]+)(?:/([!-~]*))?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMPERSONATION = re.compile(
    r"https://iamcredentials\.googleapis\.com/[^:]*/serviceAccounts/([^/:]+):generateAccessToken"
)
_ACCEPTED = "accepted, if {} may answer from anywhere"
_ENTRA = Gap(_ACCEPTED.format("login.microsoftonline.com"))
_UNKEPT = (
    "not converted: a sign-in keeps no secret; give this application a federated credential, whose token "
    "AZURE_FEDERATED_TOKEN_FILE names, or `token_file`"
)
_OF_AWS = {
    "aws_profile_name": "not converted: no file of profiles is read; write a sign-in such as aws_instance, or keys",
    "aws_sts_endpoint": "not converted: the STS of the sign-in's `region` is called",
}
_FEDERATION = Gap("a google_federation with `token_file`, or `from` a sign-in of AWS or Azure")
_STATIC = "no sign-in: a token ends, so it is the `api_key` until then; use `sign_in` (azure_workload or azure_managed)"
_AMBIENT = Gap(
    "aws_web_identity on EKS with IRSA, aws_container on EKS with pod identity or on ECS, aws_instance on EC2"
)
_AMBIENT_GOOGLE = Gap("google_metadata on GKE or Compute Engine, google_federation elsewhere")
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


@dataclass(slots=True)
class SignInReader:
    """Converts the credentials of entries of `model_list`, equal ones to one sign-in. `reference` lists variables."""

    reading: SourceReading
    reference: Callable[[str], str]
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    _names: Unique = field(default_factory=Unique)

    def read(self, provider: str | None, paths: Mapping[str, KeyPath]) -> str | Gap | None:
        """Return the name of the sign-in of an entry, a gap if it needs one that is not converted, or None."""
        if self.reading.at(*paths.get("api_key", _NOWHERE)) not in (None, ""):
            return None
        section: dict[str, Any] | Gap | None
        match provider:
            case "azure":
                section = self._azure(paths)
            case "bedrock":
                section = self._aws(paths)
                if section is None and not self._has(paths, "aws_access_key_id"):
                    section = {"kind": _AMBIENT, **self._region(paths)}
            case "vertex" | "anthropic-vertex":
                section = self._google(paths)
                if section is None and not self._has(paths, "vertex_credentials"):
                    section = {"kind": _AMBIENT_GOOGLE}
            case _:
                section = None
        return self._named(str(provider), section) if isinstance(section, dict) else section

    def _has(self, paths: Mapping[str, KeyPath], credential: str) -> bool:
        """Return whether an entry has a credential. Without one, LiteLLM takes that of the machine."""
        return self.reading.at(*paths.get(credential, _NOWHERE)) not in (None, "")

    def _region(self, paths: Mapping[str, KeyPath]) -> dict[str, str]:
        stated = self.reading.text(*paths.get("aws_region_name", _NOWHERE))
        return {"region": stated} if stated in cloud_regions()["aws"] and stated is not None else {}

    def _named(self, wanted: str, section: dict[str, Any]) -> str:
        known = next((name for name, one in self.sections.items() if one == section), None)
        if known is None:
            self.sections[known := self._names.unique(wanted)] = section
        return known

    def _azure(self, paths: Mapping[str, KeyPath]) -> dict[str, Any] | None:
        read = self.reading
        subject = self._subject("azure", token := paths.get("azure_ad_token", _NOWHERE))
        if subject is None:
            read.note(*token, note=_STATIC)
            ids = [paths[name] for name in ("tenant_id", "client_id") if name in paths]
            if len(ids) < 2:
                for path in ids:
                    read.note(*path, note="not converted: a sign-in needs both, `tenant_id` and `client_id`")
                return None
        names = {"tenant": "tenant_id", "client": "client_id"}
        texts = {ours: self._text(paths[theirs]) for ours, theirs in names.items() if theirs in paths}
        scope = read.text(*paths.get("azure_scope", _NOWHERE))
        if scope in SCOPES:
            read.use(*paths["azure_scope"])
            texts["scope"] = scope
        read.note(*paths.get("client_secret", _NOWHERE), note=_UNKEPT)
        values = {ours: text or Gap(f"the {ours} in Entra ID") for ours, text in texts.items()}
        return {"kind": "azure_workload", **values, **(subject or {}), "global_host": _ENTRA}

    def _aws(self, paths: Mapping[str, KeyPath]) -> dict[str, Any] | None:
        read = self.reading
        role, token = (paths.get(name, _NOWHERE) for name in ("aws_role_name", "aws_web_identity_token"))
        for name, note in _OF_AWS.items():
            read.note(*paths.get(name, _NOWHERE), note=note)
        if read.at(*role) is None and read.at(*token) is None:
            return None
        subject = self._subject("bedrock", token)
        has_keys = "aws_access_key_id" in paths
        if read.at(*token) is not None and subject is None:
            read.note(*role, note="not converted, because `aws_web_identity_token` is not: write the sign-in by hand")
            return None
        if read.at(*token) is None and has_keys:
            note = "not converted: keys assume no role here; a sign-in with `assume` does, such as aws_instance"
            read.note(*role, note=note)
            return None
        region = {"region": Gap("the region whose STS is called"), **self._region(paths)}
        names = {"role": "aws_role_name", "session": "aws_session_name"}
        names |= {"external_id": "aws_external_id"} if subject is None else {}
        texts = {ours: text for ours, theirs in names.items() if (text := self._text(paths.get(theirs, _NOWHERE)))}
        if subject is not None:
            return {"kind": "aws_web_identity", **region, **texts, **subject}
        if "role" not in texts:
            return None
        return {"kind": _AMBIENT, **region, "assume": texts}

    def _google(self, paths: Mapping[str, KeyPath]) -> dict[str, Any] | Gap | None:
        """Return the federation of an external account. The key of a service account is not a sign-in."""
        read = self.reading
        path = paths.get("vertex_credentials", _NOWHERE)
        value = read.at(*path)
        account = _json_object(value) if isinstance(value, str) else value
        if not isinstance(account, dict) or account.get("type") != "external_account":
            return None
        audience, source = account.get("audience"), account.get("credential_source")
        file = source.get("file") if isinstance(source, dict) and "format" not in source else None
        is_pool = isinstance(audience, str) and audience.startswith("//iam.googleapis.com/") and "${" not in audience
        if not is_pool or not isinstance(file, str) or not file.startswith("/") or "${" in file:
            note = "not converted: `google_federation` takes a `token_file` or the token of another sign-in (`from`)"
            read.note(*path, note=note)
            return _FEDERATION
        keys = ["type", "audience", ("credential_source", "file")]
        location = read.text(*paths.get("vertex_location", _NOWHERE))
        without = "without it sts.googleapis.com is called, which may answer from anywhere"
        section: dict[str, Any] = {
            "kind": "google_federation",
            "audience": audience,
            "token_file": file,
            "region": location if location in cloud_regions()["google"] else Gap(f"that of Google's STS; {without}"),
        }
        impersonation = _IMPERSONATION.fullmatch(str(account.get("service_account_impersonation_url")))
        if impersonation is not None:
            keys.append("service_account_impersonation_url")
            section["impersonate"] = impersonation[1]
            section["global_host"] = Gap(_ACCEPTED.format("iamcredentials.googleapis.com"))
        if isinstance(value, str):
            read.use(*path)
        for key in keys if isinstance(value, dict) else ():
            read.use(*path, *(key if isinstance(key, tuple) else (key,)))
        return section

    def _subject(self, provider: str, path: KeyPath) -> dict[str, str] | None:
        """Return what gives an issuer the workload's own token, after LiteLLM's `oidc/SOURCE/AUDIENCE`, or None."""
        value = self.reading.at(*path)
        match = _OIDC.fullmatch(value) if isinstance(value, str) else None
        if match is None or "${" in value:
            note = "not converted: a token of a web identity ends; write `token_file` of a sign-in aws_web_identity"
            if provider == "bedrock":
                self.reading.note(*path, note=note)
            return None
        rest = match[2] or ""
        subject: dict[str, str]
        match match[1]:
            case "azure" if provider == "azure":
                subject = {}  # the kind reads the variable itself
            case "azure":
                subject = {"token_file": self.reference("AZURE_FEDERATED_TOKEN_FILE")}
            case "file" if rest.strip("/"):
                subject = {"token_file": f"/{rest.lstrip('/')}"}
            case "env_path" if _VARIABLE.fullmatch(rest):
                subject = {"token_file": self.reference(rest)}
            case "google" if rest:
                subject = {"from": self._named("google", {"kind": "google_metadata", "audience": rest})}
            case source:
                note = f"not converted: no sign-in has `oidc/{source}`; write `token_file` with a file that rotates"
                self.reading.note(*path, note=note)
                return None
        self.reading.use(*path)
        return subject

    def _text(self, path: KeyPath) -> str | None:
        """Return a text, or the reference to its variable."""
        variable = self.reading.variable(*path)
        text = self.reference(variable) if variable is not None else self.reading.text(*path)
        if text is not None:
            self.reading.use(*path)
        return text


def _json_object(text: str) -> object:
    try:
        return json.loads(text) if text.lstrip().startswith("{") else None
    except ValueError:
        return None


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
