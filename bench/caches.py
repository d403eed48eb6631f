"""The share of prompts that providers' caches answer through the gateway, compared with a client that calls directly.

    python -m bench.caches [--json] [--turns N] [--scene NAME]

Each scene sends the turns of some conversations through whole gateways in this process, over real connections to
simulated providers with a `PrefixCache`; every second conversation is streamed. The same turns go to an equal cache as
a client sends them directly in the provider's dialect. The time of the caches is virtual: a turn takes 10 s. The exit
status is 1 if a scene is out of bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

import httpx

from gateway.assembly.application import Gateway
from gateway.config.loading import parse_document
from gateway.execution.transport import PoolTransport
from gateway.features.configuration import compile_config
from gateway.model.config_version import ConfigVersion
from gateway.telemetry.log import configure
from providers.failures import FailureKind
from providers.registry import load_registry
from providers.testkit import IncomingRequest, PrefixCache, RequestRejected, SimulatorServer, load_simulators

__all__ = ["FORMS", "LEAST_CACHED", "MOST_UNCACHED", "SCENES", "Form", "Result", "measure", "table"]

LEAST_CACHED, MOST_UNCACHED = 0.99, 1.05
"""The bounds of cached and of uncached tokens, next to those of a direct client."""
_TURN_S, _TTL_S = 10.0, 300.0
_KEY = "gk-bench-caches"
_KEYS = ("sk-first-account", "sk-second-account")
_CONVERSATIONS = range(2, 5)
"""The numbers of the conversations, of which some have the first of two keys or deployments, and some the other."""
_DOWN = range(50, 60)
_REST_S = 1.3
"""Longer than the cooldown and the open breaker of an outage, which are measured in real time."""
_WORDS = "The team keeps its handbook, its rules for code and the description of each tool in front of every question. "
Mode = Literal["plain", "routed", "marked"]
Outage = Literal["step", "key"]


@dataclass(frozen=True)
class Form:
    """A dialect of clients, and a provider of the same dialect, whose cache works in this mode."""

    dialect: Literal["chat", "responses", "messages", "gemini"]
    provider: str
    model: str
    mode: Mode


FORMS = (
    Form("chat", "openai", "gpt-4.1", "plain"),
    Form("chat", "openai", "gpt-4.1", "routed"),
    Form("chat", "openrouter", "anthropic/claude-sonnet-5", "marked"),
    Form("responses", "openai", "gpt-6-luna", "plain"),
    Form("responses", "openai", "gpt-6-luna", "routed"),
    Form("messages", "anthropic", "claude-sonnet-5", "plain"),
    Form("messages", "anthropic", "claude-sonnet-5", "marked"),
    Form("gemini", "gemini", "gemini-3.8-flash", "plain"),
    Form("gemini", "gemini", "gemini-3.8-flash", "routed"),
)


@dataclass(frozen=True)
class Scene:
    """The keys and gateways of some conversations, and the events while they go on.

    Attributes:
        keys: How many keys, of one account each, the deployment has.
        gateways: How many workers or instances take the requests in turn.
        are_instances: They are instances, which share nothing but `secrets.identity`.
        is_weighted: Two deployments share the conversations by weight.
        reloads: At which turns the configuration changes.
        outage: The first of two steps, or one of two keys, is down in turns 50 to 59.
    """

    keys: int = 1
    gateways: int = 1
    are_instances: bool = False
    is_weighted: bool = False
    reloads: tuple[int, ...] = ()
    outage: Outage | None = None


SCENES: Mapping[str, Scene] = {
    "plain": Scene(),
    "three reloads": Scene(reloads=(25, 50, 75)),
    "two keys of two accounts": Scene(keys=2),
    "two workers": Scene(keys=2, gateways=2),
    "two instances": Scene(keys=2, gateways=2, are_instances=True),
    "a weighted pair": Scene(is_weighted=True),
    "step 1 down": Scene(outage="step"),
    "one of two keys down": Scene(keys=2, outage="key"),
}


@dataclass(frozen=True)
class Tokens:
    """The tokens of some prompts: those that were read from caches, and the others."""

    cached: int
    uncached: int

    @property
    def share(self) -> float:
        """The share of cached tokens."""
        return self.cached / (self.cached + self.uncached)


@dataclass(frozen=True)
class Result:
    """The tokens of a scene, of the gateway and of a direct client."""

    scene: str
    form: Form
    ours: Tokens
    direct: Tokens

    @property
    def share(self) -> float:
        """The gateway's share of cached tokens, as a share of the direct client's."""
        return self.ours.share / self.direct.share

    @property
    def uncached_ratio(self) -> float:
        """The gateway's share of uncached tokens, as a multiple of the direct client's."""
        return (1 - self.ours.share) / (1 - self.direct.share)

    @property
    def is_good(self) -> bool:
        """Whether both figures are within their bounds."""
        return self.share > LEAST_CACHED and self.uncached_ratio <= MOST_UNCACHED

    def fields(self) -> dict[str, object]:
        """Return it as JSON data."""
        form = {"dialect": self.form.dialect, "provider": self.form.provider, "mode": self.form.mode}
        counts = {"cached": self.ours.cached, "uncached": self.ours.uncached}
        direct = {"direct_cached": self.direct.cached, "direct_uncached": self.direct.uncached}
        figures = {"share": round(self.share, 5), "uncached_ratio": round(self.uncached_ratio, 5), "ok": self.is_good}
        return {"scene": self.scene, **form, **counts, **direct, **figures}


# --- conversations --------------------------------------------------------------------------------


def request_of(form: Form, conversation: int, turn: int, *, stream: bool) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Return path, headers and body of a turn, as an agent of the dialect sends it to its provider."""
    # All begin alike, but for less than a cache reads, so that none finds the prompt of another one by chance.
    system = f"{_WORDS * 12}This is project {conversation}. {_WORDS * 48}"
    said = [f"Question {at} of conversation {conversation}: {_WORDS * 2}" for at in range(turn + 1)]
    answers = [f"Answer {at} in conversation {conversation}: {_WORDS}" for at in range(turn)]
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    session = f"session-{conversation}"
    if form.dialect == "gemini":
        turns = [_gemini(role, text) for role, text in _turns(said, answers, "model")]
        body: dict[str, Any] = {"systemInstruction": {"parts": [{"text": system}]}, "contents": turns}
        body["tools"] = [{"functionDeclarations": [{"name": "look", "description": _WORDS, "parameters": schema}]}]
        call = "streamGenerateContent" if stream else "generateContent"
        return f"/v1beta/models/MODEL:{call}", {}, body
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in _turns(said, answers)]
    body = {"model": form.model, "stream": stream}
    tool = {"name": "look", "description": _WORDS}
    if form.dialect == "responses":
        tools = [{"type": "function", **tool, "parameters": schema}]
        body |= {"instructions": system, "input": messages, "tools": tools, "reasoning": {"effort": "low"}}
        return "/v1/responses", {"session-id": session}, {**body, "prompt_cache_key": session, "store": False}
    if form.mode == "marked":
        messages[-1] = {"role": "user", "content": _marked(said[-1])}
    if form.dialect == "messages":
        body |= {"max_tokens": 99, "system": _marked(system), "messages": messages}
        body["tools"] = [{**tool, "input_schema": schema}]
        return "/v1/messages", {"x-claude-code-session-id": session, "anthropic-version": "2023-06-01"}, body
    first = _marked(system) if form.mode == "marked" else system
    body["messages"] = [{"role": "system", "content": first}, *messages]
    body["tools"] = [{"type": "function", "function": {**tool, "parameters": schema}}]
    return "/v1/chat/completions", {}, {**body, "prompt_cache_key": session}


def _turns(said: Sequence[str], answers: Sequence[str], model: str = "assistant") -> Iterator[tuple[str, str]]:
    for question, answer in zip(said, answers, strict=False):
        yield "user", question
        yield model, answer
    yield "user", said[-1]


def _gemini(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text}]}


def _marked(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]


# --- both sides -----------------------------------------------------------------------------------


class _Outages:
    """A simulator that refuses the keys in `down`, or each. `read_request` stands in front of its own."""

    def __init__(self, simulator: Any) -> None:
        self._simulator = simulator
        self.down: Sequence[str] | None = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._simulator, name)

    def read_request(self, incoming: IncomingRequest) -> Any:
        """See `Simulator`."""
        if self.down is None:
            raise RequestRejected("down", self._simulator.write_error(FailureKind.UNAVAILABLE, 503, 1.0))
        if any(key in value for key in self.down for value in incoming.headers.values()):
            raise RequestRejected("limited", self._simulator.write_error(FailureKind.RATE_LIMITED, 429, 1.0))
        return self._simulator.read_request(incoming)


_CONFIG = """
version: 1
cell: {{territory: US}}
regions: {{all: {{territories: ["*"], boundary: ["*"]}}}}
resilience: {{breaker: {{open: 1s, max_open: 1s}}}}
receipts: {{sample: {sample}}}
clients: {{app: {{keys: ["sha256:{digest}"], region: all}}}}
assistants: {{assistant: {{routes: {{all: [{route}]}}}}}}
secrets: {{identity: "${{IDENTITY}}"}}
deployments:
{deployments}
"""
_PREFIXES = {"gemini": "/v1beta"}


def _config(form: Form, scene: Scene, origins: Sequence[str], sample: float) -> ConfigVersion:
    names = [f"d{at}" for at in range(len(origins))]
    keys = ", ".join(f'"${{KEY_{at}}}"' for at in range(scene.keys))
    deployments = [
        f'  {name}: {{provider: {form.provider}, model: "{form.model}", endpoint: "{origin}'
        f'{_PREFIXES.get(form.provider, "/v1")}", stores: any, processes: any, api_key: [{keys}]}}'
        for name, origin in zip(names, origins, strict=True)
    ]
    route = "{d0: 50, d1: 50}" if scene.is_weighted else ", ".join(names)
    digest = sha256(_KEY.encode()).hexdigest()
    text = _CONFIG.format(sample=sample, digest=digest, route=route, deployments="\n".join(deployments))
    environ = {"IDENTITY": "i" * 40, **{f"KEY_{at}": key for at, key in enumerate(_KEYS)}}
    return compile_config(parse_document(text.encode(), "caches.yaml", environ), registry=load_registry()).config


def _direct_place(scene: Scene, conversation: int, turn: int) -> tuple[int, int]:
    """Return the step and the key of a client that keeps both, leaves one that is down, and returns."""
    step, key = conversation % 2 if scene.is_weighted else 0, conversation % scene.keys
    is_down = turn in _DOWN
    return 1 if is_down and scene.outage == "step" else step, 1 if is_down and scene.outage == "key" else key


async def _measured(name: str, form: Form, *, turns: int) -> Result:
    scene, now_s = SCENES[name], 0.0
    steps = range(2 if scene.is_weighted or scene.outage == "step" else 1)
    outages = [_Outages(load_simulators().named(form.provider)) for _ in steps]
    ours, theirs = ([PrefixCache(form.mode, _TTL_S, clock=lambda: now_s) for _ in steps] for _ in range(2))
    async with AsyncExitStack() as stack:
        servers = [SimulatorServer(it, "a site", cache=cache) for it, cache in zip(outages, ours, strict=True)]
        origins = [(await stack.enter_async_context(server)).origin for server in servers]
        gateways, clients = list[Gateway](), list[httpx.AsyncClient]()
        for number in range(scene.gateways):
            transport = PoolTransport()
            stack.push_async_callback(transport.aclose)
            key = bytes([number if scene.are_instances else 0]) * 32
            gateways.append(Gateway(_config(form, scene, origins, 1), transport, consent_key=key))
            app = httpx.ASGITransport(gateways[-1])
            client = httpx.AsyncClient(transport=app, base_url="http://gateway", timeout=60, trust_env=False)
            clients.append(await stack.enter_async_context(client))
        for turn in range(turns):
            if turn in scene.reloads:
                for gateway in gateways:
                    gateway.activate(_config(form, scene, origins, 1 - turn / 1000))
            await _change(scene, outages[0], turn)
            for conversation in _CONVERSATIONS:
                path, headers, body = request_of(form, conversation, turn, stream=conversation % 2 == 1)
                sent = {"authorization": f"Bearer {_KEY}", **headers}
                asked = {**body, "model": "assistant"} if "model" in body else body
                client = clients[(turn + conversation) % len(clients)]
                answer = await client.post(path.replace("MODEL", "assistant"), json=asked, headers=sent)
                if answer.status_code != 200 or b'"error":{' in answer.content:
                    raise RuntimeError(f"{name}, {form}: {answer.status_code} {answer.text[:500]}")
                step, account = _direct_place(scene, conversation, turn)
                sent = {"authorization": f"Bearer {_KEYS[account]}", **headers}
                theirs[step].read(IncomingRequest("POST", path, "", sent, json.dumps(body).encode()), form.model)
                now_s += _TURN_S / len(_CONVERSATIONS)
    accounts = {read.account for cache in ours for read in cache.reads}
    is_complete = len(accounts) >= scene.keys and all(cache.reads for cache in ours)
    if not is_complete and (scene.outage is None or turns > _DOWN.start):
        raise RuntimeError(f"{name}, {form}: a key or a step has answered no conversation")
    return Result(name, form, _tokens_of(ours), _tokens_of(theirs))


async def _change(scene: Scene, simulator: _Outages, turn: int) -> None:
    """Begin or end the outage of a scene."""
    if scene.outage is not None and turn == _DOWN.start:
        simulator.down = None if scene.outage == "step" else _KEYS[:1]
    elif scene.outage is not None and turn == _DOWN.stop:
        simulator.down = ()
        await asyncio.sleep(_REST_S)


def _tokens_of(caches: Sequence[PrefixCache]) -> Tokens:
    reads = [read for cache in caches for read in cache.reads]
    cached = sum(read.cached_tokens for read in reads)
    return Tokens(cached, sum(read.prompt_tokens for read in reads) - cached)


def measure(scene: str, form: Form, *, turns: int = 100) -> Result:
    """Return the figures of a scene. Raises RuntimeError for an answer that is an error."""
    return asyncio.run(_measured(scene, form, turns=turns))


def table(results: Sequence[Result]) -> str:
    """Return a row for each scene with the worst of its figures, in Markdown."""
    lines = ["| scene | runs | least share of cached tokens | most uncached tokens |", "|---|--:|--:|--:|"]
    for scene in dict.fromkeys(result.scene for result in results):
        own = [result for result in results if result.scene == scene]
        least, most = min(one.share for one in own), max(one.uncached_ratio for one in own)
        lines.append(f"| {scene} | {len(own)} | {least:.4f} | {most:.3f} |")
    return "\n".join(lines)


def main() -> int:
    """Run the command."""
    configure(level="error", stream=io.StringIO())
    parser = argparse.ArgumentParser(prog="python -m bench.caches", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--scene", choices=SCENES, help="only this one")
    options = parser.parse_args()
    results = [
        measure(scene, form, turns=options.turns)
        for scene in ([options.scene] if options.scene else SCENES)
        for form in FORMS
    ]
    is_good = all(result.is_good for result in results)
    if options.json:
        print(json.dumps({"ok": is_good, "scenes": [result.fields() for result in results]}, indent=1))
    else:
        print(table(results))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
