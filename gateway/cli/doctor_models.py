"""`gateway doctor --models`: compare the ends of models that are known here with the vendors' own lists.

A list is asked once for each key, where its deployments are called: with their proxy and TLS, and no byte of a request.
It changes nothing, because a false list could end a model. Of its text only days and known states are shown.
"""

from __future__ import annotations

import asyncio
import json
import time
import tomllib
from collections.abc import Hashable, Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from gateway.cli.check_result import CheckResult, Level
from gateway.config.service_permits import permit_at
from gateway.execution.service_client import ServiceClient, ServiceFailed
from gateway.execution.transport import PoolTransport, Transport
from gateway.execution.upstream_client import token_headers
from gateway.execution.upstream_request import FenceBreach
from gateway.identity.token_refresher import tokens_for_command
from gateway.model.approval import begun_everywhere, days_at
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.permit import ServicePermit
from gateway.policy.fence import is_inside
from providers.auth import Secret, credential
from providers.catalogue.model_lists import ListedModel, ModelList, model_lists, read_model, read_page
from providers.failures import FailureKind, ProviderFailed
from providers.json_values import JsonError, loads
from providers.value import Value
from providers.wire import WireRequest

_ANSWER_S = 10.0
_MOST_BYTES = 4_000_000
_MOST_PAGES = 20
_MOST_MODELS = 20_000
_WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
RESULTS: Mapping[str, tuple[Level, str]] = _WORDS["results"]
"""The level and the words of each result."""
_DEARER: Mapping[str, str] = _WORDS["dearer"]
"""The words where `on` is the day from which on a model costs more."""


class KnownEnd(NamedTuple):
    """The end of a model as it is known here: the first day without it, and whether routes pass it over then.

    `is_redirected`: another model has answered under its name since a day that has begun. `dearer_on`: the day from
    which on it costs more.
    """

    on: date | None
    is_firm: bool = True
    is_redirected: bool = False
    dearer_on: date | None = None


class ModelCheck(Value, frozen=True):
    """The result for a deployment: a key of `RESULTS`, the day of the end in the list, and why there is no answer."""

    deployment: Deployment
    result: str
    on: date | None = None
    why: str = ""
    is_dearer: bool = False
    """`on` is the day from which on it costs more."""

    def document(self) -> dict[str, str | None]:
        """Return it as JSON data. `line` is for the operator's own catalogue."""
        end, (provider, model) = known_end(self.deployment), (self.deployment.provider, self.deployment.model)
        known, key = (end.dearer_on, "dearer_on") if self.is_dearer else (end.on, "retires_on")
        has_line = self.on is not None and self.result in ("new_end", "other_day", "confirmed")
        return {
            "deployment": self.deployment.name,
            "model": model,
            "result": self.result,
            "on": str(self.on) if self.on is not None else None,
            "known": str(known) if known is not None else None,
            "line": f"models: {{{provider}: {{{json.dumps(model)}: {{{key}: {self.on}}}}}}}" if has_line else None,
        }

    def finding(self) -> CheckResult:
        """Return it as a finding of `gateway doctor`."""
        shown, (level, words) = self.document(), RESULTS[self.result]
        log = "the vendor's log of calls shows whether it answers" if level != "ok" else ""
        remedy = f"in your own catalogue: {shown['line']}" if shown["line"] is not None else log
        words = _DEARER[self.result] if self.is_dearer else words
        words = words.format(on=self.on, known=shown["known"], why=self.why)
        return CheckResult(level, self.deployment.name, f"{self.result}: {words}", remedy)


class _NoAnswer(Exception):
    """There is no whole answer. The message is why."""


def known_end(deployment: Deployment, now_s: float = 0.0) -> KnownEnd:
    """Return what is known about the end of the model, apart from that of its site, API version or token host."""
    days, own = days_at(now_s), [it for it in deployment.stages if not it.row.what and it.row.models != ("*",)]
    is_redirected = any(it.to and it.has_begun(days) for it in own)
    end, dearer = (next((it for it in own if it.stage == stage), None) for stage in ("fails", "dearer"))
    on, is_firm = (end.on, end.firm) if end is not None else (None, True)
    return KnownEnd(on, is_firm, is_redirected, dearer.on if dearer is not None else None)


def check_of(
    deployment: Deployment, known: KnownEnd, found: ListedModel | str | None, absent: str, now_s: float
) -> ModelCheck:
    """Return the result for a deployment. A stated state decides before a day.

    Args:
        found: The vendor's statement about its model, None if the vendor does not have it, or why that is unknown.
        absent: The result for a model that the vendor does not have.
    """
    if isinstance(found, str):
        return ModelCheck(deployment, "no_answer", why=found)
    if found is None:
        return ModelCheck(deployment, "as_stated" if known.is_redirected else absent)
    if found.state == "gone":
        result = "gone"
    elif found.is_unreadable:
        result = "unreadable"
    elif found.on is None:
        result = "leaving" if found.state == "leaving" else "as_stated"
    elif now_s >= begun_everywhere(found.on):
        result = "as_stated" if deployment.accept_ended else "leaving" if found.state else "gone"
    elif found.on != known.on:
        result = "new_end" if known.on is None else "other_day"
    else:
        result = "as_stated" if known.is_firm else "confirmed"
    if result in ("as_stated", "confirmed") and found.dearer_on not in (None, known.dearer_on):
        result = "new_end" if known.dearer_on is None else "other_day"
        return ModelCheck(deployment, result, found.dearer_on, is_dearer=True)
    return ModelCheck(deployment, result, found.on)


async def check_models(config: ConfigVersion, deployments: Sequence[Deployment]) -> list[ModelCheck]:
    """Ask the lists of the deployments, and return the results in their order."""
    checks, lists = dict[str, ModelCheck](), dict[Hashable, _VendorList]()
    transport = PoolTransport()
    for one in deployments:
        found = _list_of(config, one)
        if isinstance(found, str):
            checks[one.name] = ModelCheck(one, "not_asked", why=found)
        else:
            lists.setdefault(found.key, found).deployments.append(one)
    try:
        for answered in await asyncio.gather(*(one.ask(config, transport) for one in lists.values())):
            checks |= {check.deployment.name: check for check in answered}
    finally:
        await transport.aclose()
    return [checks[one.name] for one in deployments]


def _list_of(config: ConfigVersion, deployment: Deployment) -> _VendorList | str:
    """Return the list of a deployment's vendor, or why it is not asked."""
    row = model_lists().get(deployment.provider)
    if not deployment.enabled:
        return "it is disabled in the config"
    if deployment.simulates is not None:
        return "it is a simulator, which runs only in `gateway demo`"
    if row is None:
        return f"no list of the models of a key is known of {deployment.provider}"
    if any(fnmatchcase(deployment.model, pattern) for pattern in row.unlisted):
        return "no list has names of this form"
    if not deployment.has_credential:
        return f"its key is not set ({', '.join(deployment.missing_credentials)})"
    served = config.regions if config.cell is None or config.cell.serves is None else config.cell.serves
    if not any(is_inside(config, config.regions[name], deployment) for name in served):
        return "every region's boundary excludes it"
    origin, site = deployment.origin, deployment.adapter.sites.get(deployment.site)
    if row.host:
        if site is None or site.origin != origin:
            return "it has a URL of its own, and its list is at another host"
        origin = f"https://{row.host.format(site=site.name)}"
    return _VendorList(permit_at(origin, deployment.proxy_origin), row, deployment)


class _VendorList:
    """A list at one place for one key, and the deployments that it answers."""

    def __init__(self, permit: ServicePermit, row: ModelList, first: Deployment) -> None:
        self.deployments: list[Deployment] = []
        self._permit, self._row, self._first = permit, row, first
        self._token: Secret | None = None
        self._secret = first.credentials[0] if first.credentials else None
        self._path = row.path.format(base=first.target.base_path)
        sign_in = first.sign_in.id if first.sign_in is not None else None
        self.key: Hashable = permit, self._path, first.adapter.auth, self._secret, first.headers, sign_in, first.link

    async def ask(self, config: ConfigVersion, transport: Transport) -> list[ModelCheck]:
        """Return the results of the deployments."""
        services, sign_in = ServiceClient(transport), self._first.sign_in
        found: dict[str, ListedModel | str | None] = {}
        try:
            if sign_in is not None:
                tokens = await tokens_for_command(config, transport, deployment=self._first)
                self._token = tokens.current(sign_in.id)
                if self._token is None:
                    raise _NoAnswer(f"the sign-in {sign_in.name} has no token")
            listed = await self._models(services)
        except _NoAnswer as error:
            return [ModelCheck(one, "no_answer", why=str(error)) for one in self.deployments]
        for model in dict.fromkeys(one.model for one in self.deployments):
            found[model] = listed.get(self._row.listed_name(model))
            if found[model] is None and self._row.single:
                found[model] = await self._single(services, model)
        absent = "gone" if self._row.single else "missing"
        return [
            check_of(one, known_end(one, time.time()), found[one.model], absent, time.time())
            for one in self.deployments
        ]

    async def _models(self, services: ServiceClient) -> Mapping[str, ListedModel]:
        """Return the models of the whole list by name. Raises _NoAnswer."""
        row, mark, found = self._row, "", dict[str, ListedModel]()
        for _ in range(_MOST_PAGES):
            pairs = ((row.size, "1000"), (row.after, mark))
            query = tuple((name, value) for name, value in pairs if name and value)
            status, body = await self._get(services, self._path, query)
            try:
                models, mark = read_page(body, row) if status == HTTPStatus.OK else ({}, "")
            except JsonError:
                raise _NoAnswer("the answer is not a list of models") from None
            found = models | found
            if status != HTTPStatus.OK or len(found) > _MOST_MODELS:
                why = f"more than {_MOST_MODELS} models" if status == HTTPStatus.OK else f"the status {status}"
                raise _NoAnswer(f"the list has {why}")
            if not mark:
                return found
        raise _NoAnswer(f"the list has more than {_MOST_PAGES} pages")

    async def _single(self, services: ServiceClient, model: str) -> ListedModel | str | None:
        """Return what the answer about one model states, None if the vendor does not have it, or why there is none."""
        path = self._row.single.format(base=self._first.target.base_path, model=quote(model, safe=""))
        try:
            status, body = await self._get(services, path)
            if status == HTTPStatus.NOT_FOUND:
                return None
            return (
                read_model(loads(body), self._row) if status == HTTPStatus.OK else f"it is not listed: status {status}"
            )
        except (_NoAnswer, JsonError) as error:
            return f"it is not listed, and the question for it has no answer: {error}"

    async def _get(
        self, services: ServiceClient, path: str, query: tuple[tuple[str, str], ...] = ()
    ) -> tuple[int, bytes]:
        """Return the status and the body of an answer. Raises _NoAnswer."""
        first, secret, origin = self._first, self._secret, self._permit.origin
        lines = (line.partition(": ") for line in ("accept: application/json", *self._row.headers))
        wire = WireRequest("GET", path, tuple((name, value) for name, _, value in lines), b"", query)
        try:
            if first.sign_in is not None and self._token is not None:
                signed = token_headers(first, first.sign_in, wire, origin, self._token, secret, time.time())
            else:
                signed = credential(first.adapter.auth, wire, origin, secret, time.time())
            signed += tuple((name.lower(), value.reveal()) for name, value in first.headers)
            answer = await services.call(
                self._permit, wire, limit_s=_ANSWER_S, most_bytes=_MOST_BYTES, link=first.link, credential=signed
            )
        except ServiceFailed as error:
            cause = error.__cause__
            if isinstance(cause, ProviderFailed) and cause.failure.kind is FailureKind.CONNECT:
                raise _NoAnswer("no connection: see its endpoint, DNS, proxy and TLS") from None
            raise _NoAnswer(f"no whole answer in {_ANSWER_S:g} s and {_MOST_BYTES} bytes") from None
        except (FenceBreach, ProviderFailed):
            raise _NoAnswer("no request can be made of its model and its key") from None
        return answer.status, answer.body
