"""A base class for adapters of JSON over HTTP: the members that such adapters write alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from providers.adapter import Capabilities, StreamParser, Target
from providers.auth import AuthScheme, Bearer
from providers.chat import ChatCompletion, ChatRequest
from providers.failures import Failure, FailureKind, ProviderFailed, UnsupportedFeature
from providers.json_values import JsonError, as_map, dumps, loads
from providers.matching.requirements import requirements_of
from providers.reading.assembler import Assembler
from providers.reading.errors import error_object, failure
from providers.reading.event_stream import EventStreamParser
from providers.reading.folding import fold
from providers.sites import Site
from providers.wire import WireRequest, WireResponse

NO_HTTP_ERROR = WireResponse(200, {}, b"", 0)
"""The response of an error inside a stream, whose status was a success."""


class JsonAdapter:
    """An adapter whose requests and answers are JSON, and whose streams are server-sent events.

    A subclass sets the attributes and writes three methods: `encode_body`, `read` and `failure_of`. It overrides any
    other member that differs.
    """

    __slots__ = ()
    name: ClassVar[str]
    """The provider's name."""
    path: ClassVar[str] = ""
    """The path below the base path of a site."""
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset(), frozenset())
    """The features and parameters that the wire format can express."""
    sites: ClassVar[Mapping[str, Site]] = {}
    """The provider's hosts, by name."""
    auth: ClassVar[AuthScheme] = Bearer()
    """How a credential is added. The default is a bearer token."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: an adapter keeps no state between requests")

    def encode_body(self, request: ChatRequest, target: Target) -> Mapping[str, object]:
        """Return the body of a request, of JSON values, without passthrough parameters and pinned values.

        The request has only features that `capabilities` claims.
        """
        raise NotImplementedError("encode_body: return the body of the request")

    def read(self, assembler: Assembler, piece: Mapping[str, object]) -> None:
        """Pass the content of a piece of a stream, or of a whole answer, to the assembler.

        An error in a piece is passed with `assembler.fail(self.failure_of(piece, NO_HTTP_ERROR))`.

        Args:
            piece: The parsed data of one event of a stream, or the parsed body of an answer.
        """
        raise NotImplementedError("read: pass the content of the answer to the assembler")

    def failure_of(self, body: Mapping[str, object], response: WireResponse) -> Failure:
        """Return the failure that a parsed error body describes. A body that is not a JSON object is empty here.

        `failure(response, kind)` adds the wait and the request id of the headers.
        """
        raise NotImplementedError("failure_of: return the failure of an error")

    def holds_error(self, body: Mapping[str, object]) -> bool:
        """Return whether `failure_of` must read a body with a status of success. The default is a member `error`."""
        return bool(body.get("error"))

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        """See `providers.adapter.Adapter`. It refuses unclaimed features, and writes pinned values last."""
        for feature in sorted(requirements_of(request).features - self.capabilities.features):
            raise UnsupportedFeature(feature, f"{self.name} does not support {feature}")
        body = {**self.encode_body(request, target), **request.extra, **target.pins}
        headers = (("content-type", "application/json"),)
        return WireRequest("POST", f"{target.base_path}{self.path}", headers, dumps(body))

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        """See `providers.adapter.Adapter`. A whole answer is read as one large piece of a stream."""
        try:
            body = as_map(loads(response.body))
        except JsonError:
            raise ProviderFailed(failure(response, FailureKind.MALFORMED)) from None
        if self.holds_error(body):
            raise ProviderFailed(self.failure_of(body, response))
        assembler = Assembler(target.model)
        self.read(assembler, body)
        assembler.complete(is_whole=True)
        return fold(assembler.take())

    def stream_parser(self, target: Target) -> StreamParser:
        """See `providers.adapter.Adapter`."""
        assembler = Assembler(target.model)

        def read(piece: Mapping[str, object], name: str) -> None:
            if name == "error":
                assembler.fail(self.failure_of(piece, NO_HTTP_ERROR))
            else:
                self.read(assembler, piece)

        return EventStreamParser(assembler, read)

    def classify_error(self, response: WireResponse) -> Failure:
        """See `providers.adapter.Adapter`."""
        return self.failure_of(error_object(response.body), response)
