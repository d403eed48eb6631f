"""Whether a person has agreed that a deployment gets this request: standing consents, and tokens for one request.

A token is stateless: a MAC over what the person was shown (whom, where, what) and over what identifies the request (the
client's key, the region, a digest of all that the client wrote), with an end. It is good for the same request again
until then, and for nothing else; no store remembers it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from gateway.model.config_version import ConfigVersion, Region
from gateway.model.consent import NO_CONSENT, ConsentRequest, Consents, ConsentStatement
from gateway.model.deployment import Deployment
from providers.chat import ChatRequest
from providers.matching.requirements import IDENTITY, Requirements

LIFETIME_S = 300
_TOKEN = re.compile(r"c1\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")
_CONTENT = (("vision", "images"), ("audio", "audio"), ("file", "files"))


def standing_consents(table: ConfigVersion, said: ConsentStatement) -> Consents:
    """What was agreed to once for all: that needs nothing of a body. Only what the table knows is kept."""
    if not said.standing and not said.asserted:
        return NO_CONSENT
    return Consents(said.standing & table.recipients, said.asserted)


class Consenting:
    """One request's consents. now_s: Unix time, the moment at which its token is judged, for all of its attempts.

    key: signs tokens. What is said of the request's content is worked out once, and only if it is needed.
    """

    def __init__(
        self, said: ConsentStatement, request: ChatRequest, needs: Requirements, key: bytes, now_s: float
    ) -> None:
        self._said = said
        self._request = request
        self._needs = needs
        self._key = key
        self._now_s = now_s
        self._digest: str | None = None

    def under(self, table: ConfigVersion, region: Region) -> Consents:
        """What has been agreed to, as this table has it: where a recipient's place differs, an old yes is none."""
        standing = standing_consents(table, self._said)
        token = _TOKEN.fullmatch(self._said.token or "")
        if token is None or int(token[1]) <= self._now_s:
            return standing
        asking = (deployment for deployment in table.deployments.values() if deployment.consent is not None)
        confirmed = frozenset(
            deployment.name
            for deployment in asking
            if hmac.compare_digest(token[2], self._mac(deployment, region, int(token[1])))
        )
        return Consents(standing.standing, standing.asserted, confirmed) if confirmed else standing

    def ask(self, deployment: Deployment, region: Region) -> ConsentRequest:
        """What the person is to be asked, for this deployment to get the request."""
        expires_at = int(self._now_s) + LIFETIME_S
        return ConsentRequest(
            deployment.consent.recipient if deployment.consent is not None else deployment.provider,
            str(deployment.residency.stores),
            str(deployment.residency.processes),
            self._would_send(deployment),
            f"c1.{expires_at}.{self._mac(deployment, region, expires_at)}",
            expires_at,
            self._note(),
        )

    def _note(self) -> str:
        """Why what came in `x-gateway-consent` doesn't do."""
        said = self._said
        if said.note:
            return said.note
        if said.token is not None:
            token = _TOKEN.fullmatch(said.token)
            if token is None:
                return "what was sent is no consent token"
            if int(token[1]) <= self._now_s:
                return "the token has expired"
            return "the token is for another request, key, person, recipient or place, or from another gateway"
        if said.standing or said.asserted:
            return "a standing consent doesn't do here"
        return ""

    def _would_send(self, deployment: Deployment) -> tuple[str, ...]:
        """The parts of the request that the deployment would get, as a person is told of them."""
        request, needs = self._request, self._needs
        parts = ["messages", *(told for feature, told in _CONTENT if feature in needs.features)]
        parts += ["tools"] if request.tools else []
        parts += ["response_format"] if request.response_format is not None else []
        known = deployment.capabilities.parameters | deployment.target.passthrough | deployment.allowed_moves
        beside = {*request.extra, *(["user"] if request.user is not None else [])} & known
        for name in sorted(beside):
            if name not in IDENTITY or name in deployment.target.passthrough or deployment.identity == "pass":
                parts.append(name)
            elif deployment.identity == "hash" and name != "metadata":
                parts.append(f"{name} (a pseudonym of it)")
        return tuple(parts)

    def _mac(self, deployment: Deployment, region: Region, expires_at: int) -> str:
        rule = deployment.consent
        signed = [
            "consent 1",
            expires_at,
            self._said.caller,
            region.name,
            rule.recipient if rule is not None else "",
            str(deployment.residency.stores),
            str(deployment.residency.processes),
            self._would_send(deployment),
            self._content(),
        ]
        mac = hmac.digest(self._key, json.dumps(signed).encode(), "sha256")
        return urlsafe_b64encode(mac).rstrip(b"=").decode()

    def _content(self) -> str:
        if self._digest is None:
            request = self._request
            said = (request.messages, request.tools, request.response_format, request.user, request.extra)
            canonical = json.dumps(_plain(said), sort_keys=True, separators=(",", ":"))
            self._digest = hashlib.sha256(canonical.encode()).hexdigest()
        return self._digest


def _plain(value: object) -> object:
    """The value as JSON has it; of a value of ours, the kind too."""
    if is_dataclass(value):
        inner = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return [type(value).__name__, inner]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
