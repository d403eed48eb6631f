"""The prompt cache of a simulated provider: which part of a prompt it has read before, by account and model."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Literal

from providers.json_values import JsonError, as_list, as_map, dumps, loads
from providers.testkit.simulator import IncomingRequest
from providers.value import Value

_BLOCK_BYTES = 64
_TOKEN_BYTES = 4
_LEAST_TOKENS = 1024
_MACHINES = 8
_PLACED_BYTES = 256 * _TOKEN_BYTES
_MOST_A_MINUTE = 15
_MINUTE_S = 60.0
_MOST_MARKS, _MOST_BLOCKS_BACK = 4, 20
_KEYS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
_SYSTEM = ("system", "systemInstruction", "instructions")
_MESSAGES = ("messages", "input", "contents")
_MARKS = frozenset({"cache_control", "cachePoint", "prompt_cache_breakpoint"})
_CONTENT = ("content", "parts", "output")


class CacheRead(Value, frozen=True):
    """The tokens that one request read from the cache."""

    account: str
    """The credential of the request."""
    prompt_tokens: int
    """The tokens of the prompt, of four bytes each."""
    cached_tokens: int
    """The prompt tokens that were read from the cache."""


class PrefixCache:
    """The prompt cache of one provider. Give it to a `SimulatorServer`.

    It keeps the blocks of 64 bytes of each prompt (tools, then system, then messages) for each account, model and salt.
    A prefix is read from it from 1,024 tokens on.

    Args:
        mode: `plain` is one cache. With `routed`, each of 8 machines has its own cache. A hash of the first 256 tokens
            and of `prompt_cache_key` names the machine, which takes 15 requests a minute of one prefix and key; further
            requests go to the next machine. With `marked`, only prefixes up to a mark (`cache_control`, at most four)
            are kept, and each mark is looked for up to 20 blocks of content back.
        ttl_s: How long a block is kept after it was last used.
        clock: Returns monotonic seconds.

    Attributes:
        reads: The tokens that each request read, oldest first.
    """

    def __init__(
        self,
        mode: Literal["plain", "routed", "marked"] = "plain",
        ttl_s: float = 300.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mode = mode
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: dict[bytes, float] = {}
        self._taken: dict[tuple[bytes, int], deque[float]] = {}
        self.reads: list[CacheRead] = []

    def read(self, incoming: IncomingRequest, model: str) -> CacheRead:
        """Return how many tokens a request for a model reads from the cache, and keep its prompt."""
        try:
            body = as_map(loads(incoming.body))
        except JsonError:
            body = {}
        account = next((incoming.headers[name] for name in _KEYS if name in incoming.headers), "")
        scope = dumps([account, model, body.get("cache_salt")])
        blocks = list(blocks_of(body))
        prompt = b"".join([block for block, _ in blocks])
        if self._mode == "routed":
            scope += bytes([self._machine(scope, prompt[:_PLACED_BYTES], body.get("prompt_cache_key"))])
        cached = self._marked(scope, blocks) if self._mode == "marked" else self._pieces(scope, prompt)
        cached_tokens = cached // _TOKEN_BYTES if cached >= _LEAST_TOKENS * _TOKEN_BYTES else 0
        read = CacheRead(account, len(prompt) // _TOKEN_BYTES, cached_tokens)
        self.reads.append(read)
        return read

    def _machine(self, scope: bytes, prefix: bytes, key: object) -> int:
        now, place = self._clock(), blake2b(dumps(str(key)) + prefix, key=blake2b(scope).digest()).digest()
        first = int.from_bytes(place[:8], "big")
        for step in range(_MACHINES):
            machine = (first + step) % _MACHINES
            taken = self._taken.setdefault((place, machine), deque())
            while taken and taken[0] <= now - _MINUTE_S:
                taken.popleft()
            if len(taken) < _MOST_A_MINUTE:
                taken.append(now)
                return machine
        return first % _MACHINES

    def _pieces(self, scope: bytes, prompt: bytes) -> int:
        """Return how many bytes of a prompt are kept, and keep all of it."""
        pieces = [prompt[at : at + _BLOCK_BYTES] for at in range(0, len(prompt) - _BLOCK_BYTES + 1, _BLOCK_BYTES)]
        were_kept = [self._keep(digest) for digest, _ in _chain(scope, pieces)]
        return (*were_kept, False).index(False) * _BLOCK_BYTES

    def _marked(self, scope: bytes, blocks: Sequence[tuple[bytes, bool]]) -> int:
        """Return how many bytes of a prompt are kept up to one of its marks, and keep it up to each of them."""
        chain = _chain(scope, [block for block, _ in blocks])
        marks = [at for at, (_, is_marked) in enumerate(blocks) if is_marked][-_MOST_MARKS:]
        near = [it for mark in marks for it in chain[max(0, mark - _MOST_BLOCKS_BACK) : mark + 1]]
        cached = max((end for digest, end in near if self._is_kept(digest)), default=0)
        for mark in marks:
            self._keep(chain[mark][0])
        return cached // _BLOCK_BYTES * _BLOCK_BYTES

    def _is_kept(self, digest: bytes) -> bool:
        return self._kept.get(digest, 0.0) > self._clock()

    def _keep(self, digest: bytes) -> bool:
        """Return whether a digest was kept, and keep it from now on."""
        was_kept = self._is_kept(digest)
        self._kept[digest] = self._clock() + self._ttl_s
        return was_kept


def _chain(scope: bytes, pieces: Sequence[bytes]) -> list[tuple[bytes, int]]:
    """Return a digest of the prompt up to the end of each piece, and how many bytes that is."""
    chain, digest, size = list[tuple[bytes, int]](), blake2b(scope).digest(), 0
    for piece in pieces:
        digest, size = blake2b(piece, key=digest).digest(), size + len(piece)
        chain.append((digest, size))
    return chain


def blocks_of(body: Mapping[str, object]) -> Iterator[tuple[bytes, bool]]:
    """Yield the blocks of content of a prompt, in the order in which providers read them, each with its mark."""
    for tool in [*as_list(body.get("tools")), *as_list(as_map(body.get("toolConfig")).get("tools"))]:
        yield _block(tool)
    for name in _SYSTEM:
        yield from _content(body.get(name))
    for name in _MESSAGES:
        said = body.get(name)
        messages = as_list(as_map(said).get("messages")) if isinstance(said, dict) else said
        if isinstance(messages, str):
            yield _block(messages)
            continue
        for message in as_list(messages):
            head = {key: value for key, value in as_map(message).items() if key not in _CONTENT}
            yield dumps(head), False
            for key in _CONTENT:
                yield from _content(as_map(message).get(key))


def _content(content: object) -> Iterator[tuple[bytes, bool]]:
    if isinstance(content, dict):
        content = content.get("parts", [content])
    for block in content if isinstance(content, list) else [] if content is None else [content]:
        yield _block(block)


def _block(block: object) -> tuple[bytes, bool]:
    """Return the bytes of a block without its mark, and whether it has one. A text and a block of text are the same."""
    fields = as_map(block)
    if not fields:
        return dumps(block), False
    unmarked = {name: value for name, value in fields.items() if name not in _MARKS}
    if unmarked.keys() <= {"type", "text"} and isinstance(fields.get("text"), str):
        return dumps(fields["text"]), unmarked.keys() != fields.keys()
    return dumps(unmarked) if unmarked else b"", unmarked.keys() != fields.keys()
