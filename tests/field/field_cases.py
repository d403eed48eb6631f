"""Cases from the field: what a provider sends, as a report describes it, and what a client must get.

`tests/field/README.md` describes the members of a case. A case runs over the gateway's real path in this process: the
application, the fence, the run of a plan, and the adapters. Only the connections to clients and providers are missing.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import yaml

from gateway.assembly.application import Gateway
from gateway.model.config_version import ConfigVersion
from providers.vendors.bedrock.event_stream import encode_message
from tests.field.next_turn import next_body
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.gateway_command import in_this_process
from tests.kit.gateway_process import running_gateway
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.mmdb import country, mmdb

__all__ = ["FOLDER", "Case", "Outcome", "field_cases", "mistakes_of"]

FOLDER = Path(__file__).parents[1] / "field"

_USAGE = {"prompt_tokens": 120, "completion_tokens": 40, "total_tokens": 160}
_HEAD = {"id": "chatcmpl-1", "created": 1790000000, "model": "m"}
_PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
_GEMINI = {False: "/v1beta/models/{}:generateContent", True: "/v1beta/models/{}:streamGenerateContent?alt=sse"}
_BASE = Config.parse("""
version: 1
cell: {territory: DE}
regions: {de: {territories: [DE], boundary: [DE]}}
""")
_DEPLOYMENT = {
    "provider": "openai-compatible",
    "model": "m",
    "stores": "DE",
    "processes": "DE",
    "api_key": "sk-field-0123456789",
}
_CHAT_CAPABILITIES = {"capabilities": ["tools", "reasoning", "json_object"]}


def _function(name: str, *properties: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {key: {"type": "string"} for key in properties},
        "required": [*properties],
    }
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}


_LONG_VALUES = {
    "${long}": "x" * 20_000,
    "${fox}": "the quick brown fox jumps over the lazy dog " * 100,
    "${tools}": [_function("get_weather", "city"), _function("get_time")],
}
"""What a case writes by a name, so that it stays short."""


@dataclass(frozen=True)
class Case:
    """One case of a file, in one form.

    Attributes:
        name: The name in `case`.
        data: The members of the case.
        stream: Whether its requests ask for a stream. None: its requests state it themselves.
    """

    name: str
    data: Mapping[str, Any]
    stream: bool | None

    def __str__(self) -> str:
        return self.name if self.stream is None else f"{self.name}-{'stream' if self.stream else 'whole'}"


_NEEDED = {"case", "source", "what"}
_MEMBERS = {*_NEEDED, "deployments", "answers", "requests", "stream", "config", "files", "check", "want", "waits_for"}


def _complete(data: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    """Return the members of a case, with one deployment and one request if it has none."""
    where = f"tests/field/{file}: case {data.get('case')!r}"
    assert data.keys() >= _NEEDED, f"{where}: add {sorted(_NEEDED - data.keys())}"
    assert data.keys() <= _MEMBERS, f"{where}: {sorted(data.keys() - _MEMBERS)} is not known; see README.md there"
    return data if "check" in data else {"deployments": {"d": {}}, "requests": [{}], **data}


def field_cases() -> tuple[Case, ...]:
    """Return every case of every file, in each of its forms."""
    cases: list[Case] = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for data in yaml.load(path.read_text("utf-8"), yaml.CSafeLoader):
            data = _complete(data, path.name)
            forms = {"both": (True, False), True: (True,), False: (False,)}[data.get("stream", "both")]
            cases += [Case(data["case"], data, stream) for stream in (forms if data.get("requests") else (None,))]
    return tuple(cases)


# --- the provider ---------------------------------------------------------------------------------


class Providers:
    """The providers of a case: `answers` by deployment, in order; the last one repeats. `seen` are the requests."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.seen: dict[str, list[httpx.Request]] = {}
        self._answers = {name: value if isinstance(value, list) else [value] for name, value in answers.items()}
        self._turns: dict[str, int] = {}

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of the gateway. The first part of the path is the deployment."""
        name = request.url.path.split("/")[1]
        self.seen.setdefault(name, []).append(request)
        answer = self._choose(name, request.content)
        await asyncio.sleep(answer.get("after_ms", 0) / 1000)
        if answer.get("breaks"):
            raise httpx.ReadError("the connection was closed", request=request)
        if "text" in answer:
            answer = {**answer, **_plain(answer["text"], request.url.path)}
        return await _response(answer, _is_stream(request))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection of the gateway, each as it is written by HTTP/1.1."""
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError, httpx.ReadError):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
                headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines])  # type: ignore[arg-type]
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                method, target, _ = first.split(" ")
                response = await self.answer(
                    httpx.Request(method, f"http://provider{target}", headers=headers, content=body)
                )
                names = {"content-type": response.headers["content-type"], **response.headers}
                names = {name: value for name, value in names.items() if name != "content-length"}
                head = "".join(f"{name}: {value}\r\n" for name, value in names.items() if name != "transfer-encoding")
                writer.write(f"HTTP/1.1 {response.status_code} X\r\n{head}transfer-encoding: chunked\r\n\r\n".encode())
                async for piece in response.stream:  # type: ignore[union-attr]
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b"")
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
        writer.close()

    def _choose(self, name: str, body: bytes) -> Mapping[str, Any]:
        in_order: list[Mapping[str, Any]] = []
        for answer in self._answers.get(name, ()):
            if "if" not in answer:
                in_order.append(answer)
            elif _applies(answer["if"], body):
                return answer
        if not in_order:
            return {"text": name.capitalize()}
        turn = self._turns[name] = self._turns.get(name, -1) + 1
        return in_order[min(turn, len(in_order) - 1)]


def _applies(condition: Mapping[str, Any], body: bytes) -> bool:
    return (
        condition.get("contains", "").encode() in body
        and len(body) > condition.get("longer_than", -1)
        and ("has" not in condition or bool(json.loads(body).get(condition["has"])))
        and all(_fits(want, _member(json.loads(body), path)) for path, want in condition.get("at", {}).items())
    )


def _is_stream(request: httpx.Request) -> bool:
    body = json.loads(request.content) if request.content else {}
    path = request.url.path.lower()
    return bool(body.get("stream")) or "stream" in path or request.headers.get("x-dashscope-sse") == "enable"


def _plain(text: str, path: str) -> dict[str, Any]:
    """Return a plain answer, whole and as a stream, in the form of the API with this path."""
    count, parts = {"input_tokens": 120, "output_tokens": 40, "total_tokens": 160}, [{"text": text}]
    if "/converse" in path:
        usage = {"inputTokens": 120, "outputTokens": 40, "totalTokens": 160}
        whole = {
            "output": {"message": {"role": "assistant", "content": parts}},
            "stopReason": "end_turn",
            "usage": usage,
        }
        pieces = [("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}})]
        return {
            "json": whole,
            "converse": [*pieces, ("messageStop", {"stopReason": "end_turn"}), ("metadata", {"usage": usage})],
        }
    if "enerateContent" in path:
        candidate = {"index": 0, "content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
        counts = {"promptTokenCount": 120, "candidatesTokenCount": 40, "totalTokenCount": 160}
        whole = {"candidates": [candidate], "usageMetadata": counts}
        return {"json": whole, "events": [whole]}
    if path.endswith("/messages"):
        content = [{"type": "text", "text": text}]
        whole = {"type": "message", "id": "m", "content": content, "stop_reason": "end_turn", "usage": count}
        return {"json": whole, "events": [whole]}
    if path.endswith("/responses"):
        content = [{"type": "output_text", "text": text}]
        output = [{"type": "message", "role": "assistant", "content": content}]
        whole = {"id": "r", "object": "response", "status": "completed", "output": output, "usage": count}
        return {"json": whole, "events": [{"type": "response.completed", "response": whole}]}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    if path.endswith("/generation"):
        whole = {"output": {"choices": [choice]}, "usage": count, "request_id": "r"}
        return {"json": whole, "events": [whole]}
    chunks = [{"delta": message}, {"finish": "stop"}, {"choices": [], "usage": _USAGE}]
    return {"json": {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _USAGE}, "chunks": chunks}


async def _response(answer: Mapping[str, Any], is_stream: bool) -> httpx.Response:
    status, headers = answer.get("status", 200), dict(answer.get("headers", {}))
    has_events = "chunks" in answer or "events" in answer
    content: bytes | AsyncIterator[bytes]
    if "raw" in answer:
        content = "".join(answer["raw"]).encode()
    elif "converse" in answer and is_stream:
        content = b"".join(_converse_event(name, body) for name, body in answer["converse"])
        headers.setdefault("content-type", "application/vnd.amazon.eventstream")
    elif has_events and (is_stream or "json" not in answer):
        content = _events(answer)
        headers.setdefault("content-type", "text/event-stream")
    else:
        content = json.dumps(answer.get("json"), ensure_ascii=False).encode()
    headers.setdefault("content-type", "application/json")
    if answer.get("gzip"):
        content = gzip.compress(content if isinstance(content, bytes) else b"".join([one async for one in content]))
        headers["content-encoding"] = "gzip"
    if (size := answer.get("pieces")) and isinstance(content, bytes):
        content = _in_pieces(content, size)
    return httpx.Response(status, headers=headers, content=content)


def _converse_event(name: str, body: Any) -> bytes:
    """Return one event of Bedrock's binary stream."""
    kind = "exception" if name.endswith("Exception") else "event"
    headers = {":message-type": kind, f":{kind}-type": name, ":content-type": "application/json"}
    return encode_message(headers, json.dumps(body).encode())


async def _in_pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def _events(answer: Mapping[str, Any]) -> AsyncIterator[bytes]:
    chunks = [_chunk(one) for one in answer.get("chunks", ())]
    for event in answer.get("events", chunks):
        if isinstance(event, Mapping) and event.keys() == {"wait_ms"}:
            await asyncio.sleep(event["wait_ms"] / 1000)
        elif isinstance(event, Mapping) and event.keys() == {"breaks"}:
            raise httpx.ReadError("the connection was closed")
        else:
            yield _frame(event).encode()
    if answer.get("done", "chunks" in answer):
        yield _frame("[DONE]").encode()


def _chunk(short: Any) -> Any:
    """Return a chunk of OpenAI's chats for its short form; what has no short form stays as it is."""
    if not isinstance(short, Mapping) or not {"delta", "finish", "choices"} & short.keys():
        return short
    rest = {name: value for name, value in short.items() if name not in ("delta", "finish")}
    choice = {"index": 0, "delta": short.get("delta", {}), "finish_reason": short.get("finish")}
    return {**_HEAD, "object": "chat.completion.chunk", "choices": [choice], **rest}


def _frame(event: Any) -> str:
    if isinstance(event, Mapping) and event.keys() == {"event", "data"}:
        return f"event: {event['event']}\n{_frame(event['data'])}"
    if isinstance(event, str) and event.startswith((":", "data:", "event:", "id:", "retry:")):
        return event.rstrip("\n") + "\n\n"
    return f"data: {event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)}\n\n"


# --- the client -----------------------------------------------------------------------------------


@dataclass
class Outcome:
    """The answer that a client got, in the words of `want`. `asked` is the body of its request."""

    status: int
    headers: Mapping[str, str]
    body: str
    text: str = ""
    reasoning: str = ""
    tool_calls: list[Any] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    finish: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)
    cost: str | None = None
    json: Any = None
    events: list[Any] = field(default_factory=list)
    asked: Mapping[str, Any] = field(default_factory=dict)


def _read(dialect: str, response: httpx.Response) -> Outcome:
    """Read an answer as a simple client of the dialect does, by code of its own."""
    outcome = Outcome(response.status_code, response.headers, response.text)
    outcome.cost = response.headers.get("x-gateway-cost")
    is_json = response.text.startswith(("{", "["))
    events = outcome.events = _events_in(response.text)
    if dialect == "responses" and not is_json:
        outcome.error = _mistake_in_events(events)
    pieces: dict[Any, list[str]] = {}
    shown: dict[str, Any] = {}
    for event in events:
        shown |= event.get("x_gateway") or {}
        outcome.json = {**event, "x_gateway": shown} if shown else event
        outcome.error = event.get("error") or (event.get("response") or {}).get("error") or outcome.error
        outcome.cost = (event.get("x_gateway") or {}).get("cost") or outcome.cost
        _READERS[dialect](event, outcome, pieces)
    outcome.tool_calls = [[name, _parsed(arguments)] for name, arguments in pieces.values()]
    return outcome


def _events_in(answer: str) -> list[Any]:
    if not answer.startswith(("{", "[")):
        return [*_sse(answer)]
    whole = json.loads(answer)
    return whole if isinstance(whole, list) else [whole]


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return f"not JSON: {arguments}"


def _sse(text: str) -> Iterator[Any]:
    for block in text.replace("\r\n", "\n").split("\n\n"):
        data = "\n".join(line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:"))
        if data and data != "[DONE]":
            yield json.loads(data)


def _read_chat(event: Any, outcome: Outcome, pieces: dict[Any, list[str]]) -> None:
    outcome.usage = event.get("usage") or outcome.usage
    for choice in event.get("choices") or ():
        message = choice.get("message") or choice.get("delta") or {}
        outcome.text += message.get("content") or ""
        outcome.reasoning += message.get("reasoning_content") or ""
        outcome.images += message.get("images") or ()
        for position, call in enumerate(message.get("tool_calls") or ()):
            piece = pieces.setdefault(call.get("index", position), ["", ""])
            piece[0] += call["function"].get("name") or ""
            piece[1] += call["function"].get("arguments") or ""
        outcome.finish = choice.get("finish_reason") or outcome.finish


_DELTAS = {
    "text": ("text_delta", "citations_delta"),
    "thinking": ("thinking_delta", "signature_delta"),
    "tool_use": ("input_json_delta",),
}


def _read_messages(event: Any, outcome: Outcome, pieces: dict[Any, list[str]]) -> None:
    if event.get("type") == "message":
        for block in event["content"]:
            outcome.text += block.get("text", "")
            outcome.reasoning += block.get("thinking", "")
            if block["type"] == "image":
                outcome.images.append(block["source"])
            if block["type"] == "tool_use":
                pieces[len(pieces)] = [block["name"], json.dumps(block["input"])]
    delta = event.get("delta") or {}
    if (event.get("content_block") or {}).get("type") == "image":
        outcome.images.append(event["content_block"]["source"])
    if (event.get("content_block") or {}).get("type") == "tool_use":
        pieces[event["index"]] = [event["content_block"]["name"], ""]
    if event.get("type") == "content_block_start":
        outcome.blocks.append(event["content_block"]["type"])
    if event.get("type") == "content_block_delta":
        is_last = event["index"] == len(outcome.blocks) - 1
        if not is_last or delta["type"] not in _DELTAS.get(outcome.blocks[-1], ()):
            outcome.error = {"message": f"{delta['type']} outside of its block"}
    outcome.text += delta.get("text", "")
    outcome.reasoning += delta.get("thinking", "")
    if "partial_json" in delta:
        pieces[event["index"]][1] += delta["partial_json"]
    outcome.finish = event.get("stop_reason") or delta.get("stop_reason") or outcome.finish
    outcome.usage = {**outcome.usage, **(event.get("usage") or {})}


def _mistake_in_events(events: Sequence[Any]) -> dict[str, Any]:
    """Return what a strict client of the Responses API refuses in a stream: numbers with a gap, members that are missing."""
    for number, event in enumerate(events):
        response, item = event.get("response", {"output": [], "status": ""}), event.get("item", {"status": ""})
        is_whole = response.keys() >= {"output", "status"} and ("status" in item or item["type"] == "reasoning")
        if event.get("sequence_number") != number or not is_whole:
            return {"message": f"event {number} lacks its number or a member: {event}"}
    return {}


def _read_responses(event: Any, outcome: Outcome, pieces: dict[Any, list[str]]) -> None:
    whole = event.get("response") if event.get("type", "").startswith("response.") else event
    if whole is None or whole.get("status") == "in_progress" or "output" not in whole:
        return
    outcome.finish, outcome.usage = whole["status"], whole.get("usage") or {}
    for item in whole["output"]:
        if item["type"] == "message":
            outcome.text += "".join(part.get("text", "") for part in item["content"])
        elif item["type"] == "image_generation_call":
            outcome.images.append(item["result"])
        elif item["type"] in ("function_call", "custom_tool_call"):
            pieces[len(pieces)] = [item["name"], item.get("arguments", "") or json.dumps(item.get("input"))]


def _read_gemini(event: Any, outcome: Outcome, pieces: dict[Any, list[str]]) -> None:
    for candidate in event.get("candidates") or ():
        for part in candidate["content"]["parts"]:
            thinks = part.get("thought")
            outcome.text += "" if thinks else part.get("text", "")
            outcome.reasoning += part.get("text", "") if thinks else ""
            outcome.images += [part["inlineData"]] if "inlineData" in part else []
            if call := part.get("functionCall"):
                pieces[len(pieces)] = [call["name"], json.dumps(call.get("args") or {})]
        outcome.finish = candidate.get("finishReason") or outcome.finish
    outcome.usage = event.get("usageMetadata") or outcome.usage


_READERS = {"chat": _read_chat, "messages": _read_messages, "responses": _read_responses, "gemini": _read_gemini}


# --- one run --------------------------------------------------------------------------------------


def mistakes_of(case: Case, folder: Path, *, wire: bool = False) -> list[str]:
    """Run a case, and return what differs from `want`, a sentence each; empty if it holds.

    Args:
        case: The case.
        folder: An empty folder for its files.
        wire: Whether it runs over sockets, against `gateway serve`.
    """
    if "check" in case.data:
        return _check(_config(case.data, folder), case.data["check"], folder)
    return asyncio.run((_over_sockets if wire else _in_process)(case, folder))


async def _in_process(case: Case, folder: Path) -> list[str]:
    config, providers = _config(case.data, folder), Providers(_filled(case.data.get("answers", {})))
    transport = HttpxTransport(httpx.MockTransport(providers.answer))
    gateway = Gateway(_table(config.text), transport, state_dir=folder if "usage" in config.data else None)
    _skip_waits(gateway)
    asgi = httpx.ASGITransport(app=gateway)
    async with _started(gateway), httpx.AsyncClient(transport=asgi, base_url="http://gateway") as client:
        return await _run(case, client, providers)


@lru_cache(maxsize=2)
def _table(config: str) -> ConfigVersion:
    """Compile a configuration, or take that of the other form of the case."""
    return table_of(config, {})


async def _over_sockets(case: Case, folder: Path) -> list[str]:
    providers = Providers(_filled(case.data.get("answers", {})))
    async with await asyncio.start_server(providers.serve, "127.0.0.1", 0, limit=2**26) as server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        config = _config(case.data, folder, origin).write(folder)
        with running_gateway(
            config, {"GATEWAY_STATE_DIR": str(folder / "state"), "GATEWAY_ADMIN_PORT": "0"}
        ) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
                return await _run(case, client, providers)


def _skip_waits(gateway: Gateway) -> None:
    """Let a retry need no time: its wait is over at once, also for the cooldown of a key."""
    waited = [0.0]

    async def sleep(seconds: float) -> None:
        waited[0] += seconds
        await asyncio.sleep(0)

    gateway._executor.sleep = sleep
    gateway._health._clock = lambda: time.monotonic() + waited[0]


def _check(config: Config, want: Mapping[str, Any], folder: Path) -> list[str]:
    """Return what is missing in the words of `gateway check`, or should not be there."""
    result = in_this_process("check", "--config", str(config.write(folder)), environ=want.get("environ"))
    said = result.stdout + result.stderr
    missing = [f"`gateway check` does not say {words!r}: {said}" for words in want.get("says", ()) if words not in said]
    return missing + [f"`gateway check` says {words!r}: {said}" for words in want.get("never", ()) if words in said]


def _filled(value: Any) -> Any:
    """Return a value of a case with every name of a long value replaced by it."""
    if isinstance(value, str):
        return _LONG_VALUES.get(value, value)
    if isinstance(value, list):
        return [_filled(one) for one in value]
    return {name: _filled(one) for name, one in value.items()} if isinstance(value, Mapping) else value


def _config(data: Mapping[str, Any], folder: Path, origin: str = "https://provider.example") -> Config:
    deployments, assistants = {}, {}
    for name, given in data["deployments"].items():
        plain = _CHAT_CAPABILITIES if given.get("provider", "openai-compatible") == "openai-compatible" else {}
        endpoint = {"endpoint": f"{origin}/{name}"}
        # A report stays true after its model has ended.
        kept = {} if "check" in data else {"accept_ended": True}
        whole = {**_DEPLOYMENT, **endpoint, **plain, **kept, **given}
        deployments[name] = {key: value for key, value in whole.items() if value is not None}
    for request in data.get("requests", ()):
        route = _route(request)
        assistants["-".join(route)] = {"routes": {"de": route}}
    clients = {
        name: {"keys": [key_hash(f"key-{name}")], "region": "de", "show_cost": True, "may_assert": ["user"]}
        for name in {"me", *(request.get("by", "me") for request in data.get("requests", ()))}
    }
    if not assistants:
        assistants = {name: {"routes": {"de": [name]}} for name in deployments}
    config = _BASE.replace(deployments=deployments, assistants=assistants, clients=clients)
    for name, content in data.get("files", {}).items():
        if name.endswith(".mmdb"):
            (folder / name).write_bytes(
                mmdb({net: country(code) for net, code in content.items()}, built_at=int(time.time()))
            )
        else:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return Config(json.loads(json.dumps(config.merge(data.get("config", {})).data).replace("${folder}", str(folder))))


@asynccontextmanager
async def _started(gateway: Gateway) -> AsyncIterator[None]:
    """Start the application as its server does, and stop it."""
    messages: asyncio.Queue[Any] = asyncio.Queue()
    done: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(gateway({"type": "lifespan"}, messages.get, done.put))  # type: ignore[arg-type]
    await messages.put({"type": "lifespan.startup"})
    await done.get()
    try:
        yield
    finally:
        await messages.put({"type": "lifespan.shutdown"})
        await done.get()
        await task


def _route(request: Mapping[str, Any]) -> list[str]:
    to = request.get("to", "d")
    return to if isinstance(to, list) else [to]


def _is_slow(case: Case) -> bool:
    """Whether each answer comes after a second or more: then the requests wait together."""
    answers = case.data.get("answers", {}).values()
    return bool(answers) and all(isinstance(one, Mapping) and one.get("after_ms", 0) >= 1000 for one in answers)


async def _run(case: Case, client: httpx.AsyncClient, providers: Providers) -> list[str]:
    mistakes: list[str] = []
    asked = [request for request in case.data["requests"] for _ in range(request.get("times", 1))]
    answers: list[Outcome] = []
    if _is_slow(case):
        answers = await asyncio.gather(*[_ask(client, request, stream=bool(case.stream)) for request in asked])
    else:
        for request in asked:
            answers.append(await _ask(client, request, stream=bool(case.stream), former=answers[-1:]))
    for request, outcome in zip(asked, answers, strict=True):
        mistakes += differences(request.get("want", _want(case)), outcome)
    calls = {name: len(seen) for name, seen in providers.seen.items()}
    of_case = want if isinstance(want := _want(case), Mapping) else {}
    for name, number in of_case.get("calls", {}).items():
        if not _fits(number, calls.get(name, 0)):
            mistakes.append(f"{name} was called {calls.get(name, 0)} times, not {number}")
    for name, members in of_case.get("sent", {}).items():
        seen = providers.seen.get(name)
        body = _body_of(seen[-1]) if seen else {}
        for path, value in members.items():
            if isinstance(value, Mapping) and value.keys() == {"same"}:
                value = _member(body, value["same"])
            if not _fits(value, sent := _member(body, path)):
                mistakes.append(f"{name} got {path}: {sent!r}, not {value!r}")
    return mistakes


def _body_of(request: httpx.Request) -> dict[str, Any]:
    address = {"$host": request.url.host, "$path": request.url.raw_path.decode()}
    return {**json.loads(request.content or "{}"), **address}


_OF_CASE = ("calls", "sent")


def _want(case: Case) -> Any:
    return case.data.get("want", {})


def _member(value: Any, path: str) -> Any:
    for step in path.split("."):
        if isinstance(value, list) and re.fullmatch(r"-?\d+", step):
            value = value[int(step)] if -len(value) <= int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
    return value


async def _ask(
    client: httpx.AsyncClient, request: Mapping[str, Any], *, stream: bool, former: Sequence[Outcome] = ()
) -> Outcome:
    dialect = request.get("dialect", "chat")
    body = {"model": "-".join(_route(request)), "stream": stream, **_filled(request.get("body", {}))}
    if request.get("continues"):
        (last,) = former
        body = {**next_body(dialect, last.asked, last.body, last.events), **body}
    if dialect == "chat":
        body.setdefault("messages", [{"role": "user", "content": "Hi"}])
        if stream:
            body["stream_options"] = {"include_usage": True}
    defaults = {"authorization": f"Bearer key-{request.get('by', 'me')}", "content-type": "application/json"}
    headers: list[tuple[str, str]] = []
    for name, values in {**defaults, **request.get("headers", {})}.items():
        headers += [(name, value) for value in (values if isinstance(values, list) else [values])]
    asked = dict(body)
    model = body.pop("model") if dialect == "gemini" else body["model"]
    if dialect == "gemini":
        body.pop("stream")
    of_dialect = _PATHS.get(dialect) or _GEMINI[stream].format(model)
    path, content = request.get("path", of_dialect), request.get("text") or json.dumps(body)
    method = request.get("method", "POST")
    response = await client.request(method, path, content=content if method == "POST" else None, headers=headers)
    outcome = _read(dialect, response)
    outcome.asked = asked
    return outcome


def differences(want: Mapping[str, Any] | Sequence[Mapping[str, Any]], outcome: Outcome) -> list[str]:
    """Return what of an outcome differs from `want`. A list of wants has a fitting one, or the differences of its last."""
    if not isinstance(want, Mapping):
        every = [differences(one, outcome) for one in want]
        return [] if [] in every else every[-1]
    found: list[str] = []
    for name, value in want.items():
        if name in _OF_CASE:
            continue
        got = getattr(outcome, name)
        if isinstance(got, Mapping | httpx.Headers) and value:
            parts = {path: _member(got, path) if name != "headers" else got.get(path) for path in value}
            found += [
                f"{name}.{path} is {parts[path]!r}, not {one!r}"
                for path, one in value.items()
                if not _fits(one, parts[path])
            ]
        elif not _fits(value, got):
            found.append(f"{name} is {got!r}, not {value!r}")
    return [f"{one} (status {outcome.status}, {outcome.body[:300]!r})" for one in found]


def _fits(want: Any, got: Any) -> bool:
    """Whether a value is as wanted: equal; `{from, to}`, `{contains}` or `{lacks}` describe what is not fixed."""
    if isinstance(want, Mapping) and want and want.keys() <= {"from", "to"}:
        return isinstance(got, int | float) and want.get("from", got) <= got <= want.get("to", got)
    if isinstance(want, Mapping) and want.keys() == {"contains"}:
        return want["contains"] in (got if isinstance(got, str) else json.dumps(got, ensure_ascii=False))
    if isinstance(want, Mapping) and want.keys() == {"lacks"}:
        return want["lacks"] not in (got if isinstance(got, str) else json.dumps(got, ensure_ascii=False))
    return bool(want == got)
