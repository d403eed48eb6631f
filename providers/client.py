"""A client for one adapter over httpx: this library without the gateway.

    client = Client(load_registry().adapters["openai"], http, site="us", model="gpt-6-luna", secret=Secret(key))
    answer = await client.chat(request)
    async for event in client.stream(request): ...

One call is one attempt: there is no retry, no failover and no fence. The timeouts are those of the httpx client.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote, urlencode

import httpx

from providers.adapter import Adapter, Target, known_models
from providers.auth import Secret, apply
from providers.catalogue.models import model_facts
from providers.chat import ChatCompletion, ChatRequest, Failed, Finished, StreamEvent
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.reading.json_object import json_start_of
from providers.reading.response_reader import MAX_BODY_BYTES, TOO_LARGE, AnswerReader, read_answer
from providers.sites import PROJECT, parse_origin
from providers.value import replace
from providers.wire import WireResponse


class Client:
    """A client for one model at one site.

    Raises KeyError if the adapter has no such site. Raises OriginError if requests cannot be sent to this URL or host.
    Raises ValueError if both `site` and `url` are given, or neither.

    Args:
        adapter: The provider's adapter.
        http: The httpx client. The caller closes it.
        model: The provider's name of the model.
        site: The name of a site of the adapter. Give either `site` or `url`.
        url: The base URL of your own endpoint.
        secret: The credential.
        project: Your cloud project or workspace, if the site's path or host contains one.
        clock: Returns the current time in Unix seconds.
    """

    def __init__(
        self,
        adapter: Adapter,
        http: httpx.AsyncClient,
        *,
        model: str,
        site: str | None = None,
        url: str | None = None,
        secret: Secret | None = None,
        project: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if (site is None) == (url is None):
            raise ValueError("give either a site of the catalogue or a URL")
        if site is not None:
            known = adapter.sites[site]
            self._origin, base_path, pins = known.origin_of(project or ""), known.base_path, known.pins
            base_path = base_path.replace(f"/{PROJECT}/", f"/{quote(project or PROJECT, safe=':')}/")
        else:
            self._origin, path = parse_origin(url or "")
            base_path, pins = path or "", {}
        facts = model_facts(known_models(adapter), model)
        self._adapter = adapter
        self._http = http
        self._secret = secret
        self._clock = clock
        self._target = Target(model=model, base_path=base_path, facts=facts, pins=pins)

    async def chat(self, request: ChatRequest) -> ChatCompletion:
        """Return the whole answer. Raises ProviderError."""
        response = await self._open(replace(request, stream=False))
        head, body = self._head(response), bytearray()
        try:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise ProviderFailed(TOO_LARGE)
        except httpx.HTTPError as error:
            raise ProviderFailed(_broken_off(error)) from error
        finally:
            await response.aclose()
        start = json_start_of(self._adapter, request, self._target)
        whole = replace(head, body=bytes(body))
        return read_answer(self._adapter, whole, self._target, request.stop, start, request.max_tokens)

    async def stream(self, request: ChatRequest) -> AsyncIterator[StreamEvent]:
        """Yield the events as they arrive. The last one is `Finished` or `Failed`. Raises UnsupportedFeature."""
        try:
            response = await self._open(replace(request, stream=True))
        except ProviderFailed as error:
            yield Failed(error.failure)
            return
        start = json_start_of(self._adapter, request, self._target)
        expected = request.stop, start, request.max_tokens
        reader = AnswerReader(self._adapter, self._head(response), self._target, *expected)
        try:
            async for chunk in response.aiter_bytes():
                for event in reader.feed(chunk):
                    yield event
                    if isinstance(event, Finished | Failed):
                        return
        except httpx.HTTPError as error:
            yield Failed(_broken_off(error))
            return
        finally:
            await response.aclose()
        for event in reader.close():
            yield event

    async def _open(self, request: ChatRequest) -> httpx.Response:
        wire = self._adapter.build_request(request, self._target)
        wire = apply(self._adapter.auth, wire, self._origin, self._secret, self._clock())
        url = f"{self._origin}{wire.path}" + (f"?{urlencode(wire.query)}" if wire.query else "")
        prepared = self._http.build_request(wire.method, url, headers=list(wire.headers), content=wire.body)
        try:
            return await self._http.send(prepared, stream=True, follow_redirects=False)
        except httpx.HTTPError as error:
            # The cause is not chained: for a header that can't be sent, its text quotes the key.
            is_silent = isinstance(error, httpx.ReadTimeout)
            message = "the provider did not answer in time" if is_silent else "the provider could not be reached"
            kind = FailureKind.SILENT if is_silent else FailureKind.CONNECT
            raise ProviderFailed(Failure(kind, message, type(error).__name__)) from None

    def _head(self, response: httpx.Response) -> WireResponse:
        return WireResponse(response.status_code, dict(response.headers.items()), b"", self._clock())


def _broken_off(error: httpx.HTTPError) -> Failure:
    if isinstance(error, httpx.DecodingError):
        return Failure(FailureKind.MALFORMED, "the provider's answer can't be decompressed", type(error).__name__)
    return Failure(FailureKind.INTERRUPTED, "the provider's answer broke off", type(error).__name__)
