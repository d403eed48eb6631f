"""Check a user's consent to a deployment: standing consents, and tokens for one request.

A token is stateless. It is a MAC over what the user was shown (recipient, residency, content), over the identity of the
request (the client's key, the region, a digest of the whole request) and over its expiry time. Until then, the same
request may be repeated with it. It is valid for nothing else, and no store remembers it.

A token for a deployment after a barrier (`c2`) also covers the assistant, the cause and what is shared, and its digest
is over the request that would be sent. So it shows that the barrier was open for this content.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass

from gateway.model.config_version import ConfigVersion, Region
from gateway.model.consent import NO_CONSENT, ConsentRequest, Consents, ConsentStatement
from gateway.model.deployment import Deployment, capabilities_for
from gateway.model.hand_off import HandOff
from gateway.model.served import ServedRequest
from gateway.model.wrapper import NotWrappable, TooMuchToSearch, Wrapped, Wrapper
from gateway.policy.fence import wrapper_of_step
from providers.adapter import Capabilities
from providers.chat import ChatRequest
from providers.matching.requirements import CACHE_KEY, IDENTITY, Requirements
from providers.served import InputRequest

LIFETIME_S = 300
_TOKEN = re.compile(r"(c[12])\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")
_CONTENT = (("vision", "images"), ("audio", "audio"), ("file", "files"))

_COVERED = ("messages", "tools", "response_format", "user", "extra")
"""The fields of a chat request that every token covers. It covers any other one, except `FORM`, that has a value."""

FORM = frozenset(
    "model stream include_usage max_tokens temperature top_p presence_penalty frequency_penalty seed n logprobs "
    "top_logprobs parallel_tool_calls reasoning_budget place unread folded".split()
)
"""The fields of a chat request that carry no text to a provider. They may change after the user has agreed."""
_LATER: Mapping[str, object] = {"is_error": False, "cache": None, "images": [], "own": None}
"""Fields that were added later, with their defaults: without a value they do not count, so that tokens stay valid."""


def standing_consents(config: ConfigVersion, statement: ConsentStatement) -> Consents:
    """Return the standing consents, which do not depend on the body. Recipients that the config lacks are left out."""
    if not statement.standing and not statement.asserted:
        return NO_CONSENT
    return Consents(statement.standing & config.recipients, statement.asserted)


@dataclass(eq=False, repr=False)
class Consenting:
    """The consents of one request. The digest of its content is computed once, and only if it is needed.

    Of a large request that is redacted, `prepare` takes long: call it in a thread before the other methods.

    Args:
        keys: The valid keys of tokens, the newer one first. The first signs new tokens.
        now_s: The Unix time at which the token is judged, for all attempts.
        opened: The assistant's name and the hand-off, if its barrier is open. `request` is then what would be sent.
        wrapper: That of this barrier, or None.

    Attributes:
        request: The request.
    """

    _statement: ConsentStatement
    request: ServedRequest
    _needs: Requirements
    _keys: tuple[bytes, ...]
    _now_s: float
    _opened: tuple[str, HandOff] | None = None
    _wrapper: Wrapper | None = None
    _wrapped: dict[bytes, Wrapped | None] = field(default_factory=dict)
    _digests: dict[bytes, str] = field(default_factory=dict)

    def most_at_once(self, config: ConfigVersion, region: Region) -> int | None:
        """Return from how many characters on a thread must prepare a request, or None if nothing redacts it."""
        wrappers = [wrapper_of_step(region, deployment, self._wrapper) for deployment in _asking(config)]
        return min((each.most_at_once for each in wrappers if each is not None), default=None)

    def prepare(self, config: ConfigVersion, region: Region) -> None:
        """Do the work that grows with the request."""
        for deployment in _asking(config):
            self._content(deployment, region)

    def opened_by(self, opened: tuple[str, HandOff]) -> Consenting:
        """Return the consents to what this hand-off sends. See `Consenting`."""
        other = copy(self)
        other._opened = opened
        return other

    def under(self, config: ConfigVersion, region: Region) -> Consents:
        """Return the consents under a config version.

        A token does not count if the recipient has another residency in this version.
        """
        standing = standing_consents(config, self._statement)
        token = _TOKEN.fullmatch(self._statement.token or "")
        if token is None or token[1] != self._form or int(token[2]) <= self._now_s:
            return standing
        confirmed = frozenset(
            deployment.name
            for deployment in _asking(config)
            if any(
                hmac.compare_digest(token[3], self._mac(deployment, region, int(token[2]), key)) for key in self._keys
            )
        )
        return Consents(standing.standing, standing.asserted, confirmed) if confirmed else standing

    def ask(self, deployment: Deployment, region: Region) -> ConsentRequest:
        """Return the question to the user whose consent this deployment needs."""
        expires_at = int(self._now_s) + LIFETIME_S
        return ConsentRequest(
            deployment.consent.recipient if deployment.consent is not None else deployment.provider,
            str(deployment.residency.stores),
            str(deployment.residency.processes),
            self._would_send(deployment, region),
            f"{self._form}.{expires_at}.{self._mac(deployment, region, expires_at, self._keys[0])}",
            expires_at,
            self._note(),
            self._opened[1].cause if self._opened is not None else None,
            tuple(sent.counts) if (sent := self._sent(deployment, region)) is not None else (),
        )

    def _sent(self, deployment: Deployment, region: Region) -> Wrapped | None:
        """Return the request as the deployment would get it, or None if it would get all values."""
        wrapper = wrapper_of_step(region, deployment, self._wrapper)
        if wrapper is None:
            return None
        if wrapper.key not in self._wrapped:
            try:
                self._wrapped[wrapper.key] = wrapper.wrap(self.request)
            except (NotWrappable, TooMuchToSearch):
                self._wrapped[wrapper.key] = None  # it is not sent there
        return self._wrapped[wrapper.key]

    @property
    def _form(self) -> str:
        """The beginning of a token of this kind."""
        return "c1" if self._opened is None else "c2"

    def _note(self) -> str:
        """Return why the value of `x-gateway-consent` is not sufficient, or an empty text."""
        statement = self._statement
        if statement.note:
            return statement.note
        if statement.token is not None:
            token = _TOKEN.fullmatch(statement.token)
            if token is None:
                return "the value is not a consent token"
            if int(token[2]) <= self._now_s:
                return "the token has expired"
            return "the token is for another request, key, user, recipient or residency, or from another gateway"
        if statement.standing or statement.asserted:
            return "this deployment does not accept standing consent"
        return ""

    def _would_send(self, deployment: Deployment, region: Region) -> tuple[str, ...]:
        """Return the parts of the request that the deployment would receive, with the names that a user is shown."""
        request, needs = self.request, self._needs
        if not isinstance(request, ChatRequest):
            return self._would_send_input(request, deployment, region)
        parts = ["messages", *(label for feature, label in _CONTENT if feature in needs.features)]
        parts += ["tools"] if request.tools else []
        parts += ["response_format"] if request.response_format is not None else []
        parts += ["stop"] if request.stop and "stop" in deployment.capabilities.parameters else []
        others = self._other_fields(deployment, region, deployment.capabilities, request.extra, request.user)
        return self._shown((*parts, *others), deployment, region)

    def _shown(self, parts: tuple[str, ...], deployment: Deployment, region: Region) -> tuple[str, ...]:
        """Return the names of parts, those with placeholders marked."""
        sent = self._sent(deployment, region)
        if sent is None or not sent.counts:
            return parts
        own, other = self.request, sent.request
        return tuple([f"{name} (with placeholders)" if _has_changed(name, own, other) else name for name in parts])

    def _would_send_input(self, request: InputRequest, deployment: Deployment, region: Region) -> tuple[str, ...]:
        labels = [label for feature, label in _CONTENT if feature in self._needs.features]
        if request.shown_as is not None:
            own, texts = request.shown_as
            parts = dict.fromkeys((*own, *(texts if any(request.texts()) else ()), *labels))
            return self._shown(tuple(parts), deployment, region)
        known = capabilities_for(deployment, self._needs.use)
        others = self._other_fields(deployment, region, known, request.extra, request.user)
        return self._shown(("input", *labels, *others), deployment, region)

    def _other_fields(
        self,
        deployment: Deployment,
        region: Region,
        capabilities: Capabilities,
        extra: Mapping[str, object],
        user: str | None,
    ) -> Iterator[str]:
        known = capabilities.parameters | deployment.target.passthrough | deployment.allowed_moves
        use, protected = self._needs.use, region.protected
        is_whole = self._opened is None or self._opened[1].share == "conversation"
        session = [CACHE_KEY] if self._statement.has_session and use == "chat" and is_whole else []
        other_fields = {*extra, *(["user"] if user is not None else []), *session} & known
        treatments = {
            name: deployment.treatment_of(name, use, protected=protected) if name in IDENTITY else "pass"
            for name in other_fields
        }
        if CACHE_KEY in other_fields - extra.keys():
            treatments[CACHE_KEY] = deployment.cache_key_in(protected=protected)
        if deployment.cache_isolation == "user" and use == "chat" and treatments.get("user", "strip") == "strip":
            treatments["user"] = "pseudonym"  # as the salt of its cache
        for name, treatment in sorted(treatments.items()):
            if treatment == "pass":
                yield name
            elif treatment == "pseudonym":
                yield f"{name} (a pseudonym of it)"

    def _mac(self, deployment: Deployment, region: Region, expires_at: int, key: bytes) -> str:
        rule = deployment.consent
        signed = [
            *(
                ("consent 1",)
                if self._opened is None
                else ("consent 2", self._opened[0], *self._opened[1].fields().values())
            ),
            expires_at,
            self._statement.caller,
            region.name,
            rule.recipient if rule is not None else "",
            str(deployment.residency.stores),
            str(deployment.residency.processes),
            self._would_send(deployment, region),
            self._content(deployment, region),
        ]
        mac = hmac.digest(key, json.dumps(signed).encode(), "sha256")
        return urlsafe_b64encode(mac).rstrip(b"=").decode()

    def _content(self, deployment: Deployment, region: Region) -> str:
        """Return the digest of the request as it would be sent."""
        sent = self._sent(deployment, region)
        wrapper = wrapper_of_step(region, deployment, self._wrapper)
        key = wrapper.key if wrapper is not None and sent is not None and sent.counts else b""
        if key not in self._digests:
            request = self.request if sent is None else sent.request
            content: object = request
            if isinstance(request, ChatRequest):
                content = _covered(request)
            canonical = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
            self._digests[key] = hashlib.sha256(canonical.encode()).hexdigest()
        return self._digests[key]


def _asking(config: ConfigVersion) -> Iterator[Deployment]:
    """Yield the deployments that need a consent."""
    return (deployment for deployment in config.deployments.values() if deployment.consent is not None)


def _has_changed(name: str, own: ServedRequest, sent: ServedRequest) -> bool:
    """Return whether a part of a request, by the name that a user is shown, has placeholders."""
    field = {"input": "inputs"}.get(name, name)
    if name in own.extra:
        return own.extra[name] != sent.extra.get(name)
    return bool(getattr(own, field, None) != getattr(sent, field, None))


def _covered(request: ChatRequest) -> list[object]:
    """Return everything in the request that carries text to a provider."""
    others = {
        field.name: getattr(request, field.name)
        for field in fields(request)
        if field.name not in FORM and field.name not in _COVERED and getattr(request, field.name) != field.default
    }
    return [*(getattr(request, name) for name in _COVERED), *([others] if others else [])]


def _plain(value: object) -> object:
    """Return the value as JSON values. A dataclass becomes its class name and its fields."""
    if is_dataclass(value):
        inner = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        inner = {name: each for name, each in inner.items() if name not in _LATER or each != _LATER[name]}
        return [type(value).__name__, inner]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, memoryview):  # a file
        return hashlib.sha256(value).hexdigest()
    return sorted(value) if isinstance(value, frozenset) else value
