"""A client of each API dialect, for tests that compare what passes the gateway in two dialects.

The adapter of the vendor that invented a dialect writes the requests and reads the answers of its client. So no request
is written by the code that reads it, and a strict reader (`event_grammar`) checks each stream as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from urllib.parse import unquote, urlencode

from gateway.api.dialects.dialect import Dialect
from gateway.api.dialects.paths import dialect_at
from providers.adapter import Adapter, EmulatesFeatures, Target
from providers.catalogue.models import ModelFacts
from providers.chat import ChatCompletion, ChatRequest, StreamEvent
from providers.conformance.subject import parse_stream
from providers.json_values import dumps
from providers.matching.capability_matching import THINKS_BY_RESPONSES
from providers.matching.requirements import CACHE_MARKS
from providers.reading.response_reader import read_answer
from providers.registry import load_registry
from providers.vendors.openai.responses_request import encode_body
from providers.wire import WireRequest, WireResponse

__all__ = ["DIALECT_CLIENTS", "DialectClient"]

_ASSISTANT = "assistant"


@dataclass(frozen=True)
class DialectClient:
    """A client of one dialect.

    Attributes:
        name: The name of the dialect.
        adapter: The vendor's adapter.
        target: The target of its requests: an assistant of the gateway.
        write: Another function for requests than the adapter's.
        lost: The parameters that the dialect has no field for.
    """

    name: str
    adapter: Adapter
    target: Target
    write: Callable[[ChatRequest, Target], bytes] | None = None
    lost: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return self.name

    @property
    def features(self) -> frozenset[str]:
        """The features that a request of this client can have."""
        emulated = self.adapter.emulated if isinstance(self.adapter, EmulatesFeatures) else frozenset[str]()
        return self.adapter.capabilities.features - emulated

    @property
    def parameters(self) -> frozenset[str]:
        """The parameters that a request of this client can have."""
        return self.adapter.capabilities.parameters - self.lost

    def request(self, request: ChatRequest) -> WireRequest:
        """Return the bytes that the client sends. Raises UnsupportedFeature for what its API does not have."""
        if self.write is None:
            return self.adapter.build_request(request, self.target)
        return WireRequest("POST", f"{self.target.base_path}/responses", (), self.write(request, self.target))

    def dialect(self, stream: bool) -> Dialect | None:
        """Return the gateway's side for one request; None if the gateway does not have the dialect."""
        path, query = self._address(stream)
        return dialect_at(path, query)

    def _address(self, stream: bool) -> tuple[str, bytes]:
        match self.name:
            case "chat":
                return "/v1/chat/completions", b""
            case "gemini":
                method = "streamGenerateContent" if stream else "generateContent"
                return f"/v1beta/models/{_ASSISTANT}:{method}", b"alt=sse" if stream else b""
        return f"/v1/{self.name}", b""

    def decode(self, wire: WireRequest) -> tuple[Dialect, ChatRequest]:
        """Return the gateway's side of a request that was sent, and the request as the gateway reads it."""
        dialect = dialect_at(unquote(wire.path), urlencode(wire.query).encode())
        assert dialect is not None, f"no dialect at {wire.path}"
        request = dialect.decode(wire.body)
        assert isinstance(request, ChatRequest), f"no chat at {wire.path}"
        return dialect, request

    def read_answer(self, body: bytes) -> ChatCompletion:
        """Return a whole answer as the client reads it."""
        return read_answer(self.adapter, WireResponse(200, {"content-type": "application/json"}, body, 0), self.target)

    def read_stream(self, data: bytes) -> tuple[StreamEvent, ...]:
        """Return a stream as the client reads it. Raises GrammarError if the strict reader finds a mistake."""
        module = f"tests.kit.event_grammar.{self.name}"
        if find_spec(module) is not None:
            reader = import_module(module).read_stream
            reader(data, "events") if self.name == "gemini" else reader(data)
        return parse_stream(self.adapter, self.target, [data])


def _responses_body(request: ChatRequest, target: Target) -> bytes:
    return dumps(encode_body(request, target))


def _clients() -> Mapping[str, DialectClient]:
    adapters = load_registry().adapters

    def client(name: str, vendor: str, base_path: str = "/v1", flags: frozenset[str] = frozenset()) -> DialectClient:
        adapter = adapters[vendor]
        facts = ModelFacts(features=adapter.capabilities.features, flags=flags)
        return DialectClient(name, adapter, Target(_ASSISTANT, base_path, facts))

    responses = client("responses", "openai", flags=frozenset({THINKS_BY_RESPONSES, CACHE_MARKS}))
    lost = {"presence_penalty", "frequency_penalty", "seed", "stop", "logit_bias", "message_name", "n"}
    return {
        one.name: one
        for one in (
            client("chat", "openai", flags=frozenset({CACHE_MARKS})),
            replace(responses, write=_responses_body, lost=frozenset(lost)),
            client("messages", "anthropic"),
            client("gemini", "gemini", "/v1beta"),
        )
    }


DIALECT_CLIENTS = _clients()
