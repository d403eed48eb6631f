"""The roads of requests through the house, in memory: a plain chat, and what each feature of the house adds to it.

The answers of Valkey are constant, like those of the provider, because only the cost of the gateway is measured.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jwt
import libvalkey
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import ECAlgorithm

from bench.audio import BOUNDARY, form_of
from bench.config import chat_body, production_config
from bench.inprocess import (
    PORTS,
    InProcess,
    Memory,
    accounting_gateway,
    bench_table,
    post_bytes,
    provider_answers,
    request_bytes,
)
from bench.stub import Answers, json_answer
from bench.websocket import OverWebSocket, requests_of
from gateway.cell import valkey_connection
from gateway.cell.valkey_scripts import HOLD, pack
from gateway.model.config_version import ConfigVersion

__all__ = ["LARGE", "ROADS", "Road"]

_CHAT = "/v1/chat/completions"
_JSON = request_bytes("JSON")
_EU = '  eu: {territories: ["@EEA", CH], boundary: ["@EEA", CH]'
_HOUSE = '{provider: openai-compatible, model: m, endpoint: "http://127.0.0.1:1/v1", stores: DE, processes: DE'
_REDACTION = "redactions: {personal: {kinds: [email, phone, iban, card, secret], countries: [DE]}}\n"
_CONSENT = "consent: {mode: per_request, on_missing: refuse, recipient: OpenAI}"
_SECRET = "s" * 40
_STORES = (
    'stores: {database: {url: "postgresql://gateway@127.0.0.1:1/gateway", territory: DE}, '
    f'valkey: {{url: "redis://127.0.0.1:1", territory: DE}}}}\nsecrets: {{pepper: "{_SECRET}"}}\n'
)
_ISSUER, _AUDIENCE = "https://login.example/tenant", "api://gateway"
_READ_BYTES = 256 * 1024
"""The most that the server's loop reads at once."""
_LONG_S = 3600.0


class Road(NamedTuple):
    """A connection to a gateway, a request and the provider's answer. A response that took the road has the mark."""

    client: InProcess
    request: bytes
    answers: Sequence[bytes] = tuple(provider_answers("JSON"))
    mark: bytes = b'"choices"'

    async def take(self) -> bytes:
        """Send the request once, store its receipt, and return the response."""
        response = await self.client.ask(self.request, self.answers)
        self.client.write_receipts()
        return response

    async def take_checked(self) -> None:
        """Send the request once. Raises RuntimeError if the response does not have the mark."""
        response = await self.take()
        if self.mark not in response:
            raise RuntimeError(f"the gateway answers {response[:600].decode('utf-8', 'replace')}")


def _table(*, eu: str = "", more: str = "") -> ConfigVersion:
    """Return the compiled config of the bench with more keys of the region `eu`, and more lines at its end."""
    return bench_table(production_config(PORTS).replace(_EU, _EU + eu) + more)


async def _plain(_: Path) -> Road:
    return Road(InProcess(bench_table()), _JSON)


async def _budgets(folder: Path) -> Road:
    return Road(accounting_gateway(folder), _JSON)


async def _redaction(_: Path) -> Road:
    body = chat_body("assistant", stream=False).replace(b"What does", b"To a@example.com, +49 171 1234567: what does")
    client = InProcess(_table(eu=", redact: personal", more=_REDACTION))
    return Road(client, post_bytes(_CHAT, body), mark=b"x-gateway-redacted: email=1, phone=1")


class _Judged(InProcess):
    """A client whose provider judges texts too, and answers with a verdict for each of `texts`.

    Attributes:
        texts: The number of texts that are judged now.
    """

    texts = 4

    answers_by_request = True

    def _answer_to(self, written: bytes) -> Sequence[bytes]:
        if not written.startswith(b"POST /v1/moderations"):
            return self._answer
        return [json_answer({"results": [{"flagged": False, "categories": {}}] * self.texts})]


async def _moderation(_: Path) -> Road:
    """Return the road of a chat that goes on: only its last message is judged, and the others are remembered."""
    chat = orjson.loads(chat_body("assistant", stream=False))
    chat["messages"] += [{"role": "assistant", "content": "It routes."}, {"role": "user", "content": "And then?"}]
    moderation = ", moderation: {input: [judge], on_failure: closed}"
    client = _Judged(_table(eu=moderation, more=f"  judge: {_HOUSE}}}\n"))
    road = Road(client, post_bytes(_CHAT, orjson.dumps(chat)))
    await road.take_checked()
    client.texts = 1
    return road


async def _consent(_: Path) -> Road:
    text = production_config(PORTS).replace("processes: DE", f"processes: DE, {_CONSENT}")
    client = InProcess(bench_table(f'{text}secrets: {{consent: "{_SECRET}"}}\n'))
    refusal = (await client.ask(_JSON, ())).partition(b"\r\n\r\n")[2]
    token = orjson.loads(refusal)["error"]["consent"]["token"]
    return Road(client, post_bytes(_CHAT, chat_body("assistant", stream=False), x_gateway_consent=token))


async def _tokens(folder: Path) -> Road:
    key, now_s = generate_private_key(SECP256R1()), int(time.time())
    keys, file = {"keys": [{**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "k"}]}, folder / "keys.json"
    folder.mkdir()  # noqa: ASYNC240  # nothing else runs yet
    file.write_bytes(orjson.dumps(keys))
    members = {"iss": _ISSUER, "aud": _AUDIENCE, "iat": now_s, "exp": now_s + 3600, "sub": "anna", "roles": ["Chat"]}
    token = jwt.encode(members, key, "ES256", headers={"kid": "k"})
    issuer = f'issuer: "{_ISSUER}", audience: "{_AUDIENCE}", algorithms: [ES256], jwks: "{file}"'
    rule = "{client: client-9, where: {roles: Chat}}"
    client = InProcess(_table(more=f"token_issuers: {{house: {{{issuer}, clients: [{rule}]}}}}\n"))
    request = post_bytes(_CHAT, chat_body("assistant", stream=False), authorization=f"Bearer {token}")
    return Road(client, request)


async def _cell(folder: Path) -> Road:
    client = accounting_gateway(folder, changed=lambda text: text + _STORES)
    loop, pipeline, commands = asyncio.get_running_loop(), valkey_connection._Pipeline(), libvalkey.Reader()
    granted = pack((True, (), (0,), (), time.time_ns() // 1000))
    held = b"$%d\r\n%b\r\n" % (len(granted), granted)

    def answer(written: bytes) -> None:
        commands.feed(written)
        while words := commands.gets():
            is_hold = words[1] == HOLD.digest.encode()
            loop.call_soon(pipeline.data_received, held if is_hold else b":1\r\n")

    pipeline.connection_made(Memory(answer))
    gate = cast(Any, client.app)._usage.stores._valkey
    gate.connection._pipeline, gate._deadline_s = pipeline, _LONG_S
    gate.enter("e", is_ready=True)
    return Road(client, _JSON)


async def _websocket(_: Path) -> Road:
    client = OverWebSocket(bench_table())
    await client.shake()
    return Road(client, requests_of(0)[1], Answers(4, 4).paced["openai+usage"], b"response.completed")


class _Upload(InProcess):
    """A client that sends a form in pieces. The provider answers after the last piece."""

    async def ask(self, request: bytes, answer: Sequence[bytes]) -> bytes:
        last = (len(request) - 1) // _READ_BYTES * _READ_BYTES
        for start in range(0, last, _READ_BYTES):
            self._protocol.data_received(request[start : start + _READ_BYTES])
            await asyncio.sleep(0)
        return await super().ask(request[last:], answer)

    answers_by_request = True

    def _answer_to(self, written: bytes) -> Sequence[bytes]:
        return self._answer if bytes(written[-4:]) == b"--\r\n" else ()


def _serving(use: str) -> ConfigVersion:
    """Return the config in which the assistant has another use than chats, by a server of the house."""
    text = production_config(PORTS).replace("  assistant: {", f"  assistant: {{{use}: {{eu: [house]}}, ")
    return bench_table(f"{text}  house: {_HOUSE}, audio_bytes: 2000000}}\n")


async def _transcription(_: Path) -> Road:
    media = f"multipart/form-data; boundary={BOUNDARY}"
    request = post_bytes("/v1/audio/transcriptions", form_of(1 << 20), content_type=media)
    answer = json_answer({"text": "Hello.", "usage": {"type": "duration", "seconds": 1}})
    return Road(_Upload(_serving("transcription")), request, [answer], b'"text":"Hello."')


async def _embedding(_: Path) -> Road:
    texts = [f"A text of some words, which is the one with the number {number}." for number in range(8)]
    body = {"model": "assistant", "input": texts, "encoding_format": "base64"}
    vector = base64.b64encode(struct.pack("<1536f", *[0.5] * 1536)).decode()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(texts))]
    answer = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 96, "total_tokens": 96}}
    request = post_bytes("/v1/embeddings", orjson.dumps(body))
    return Road(InProcess(_serving("embeddings")), request, [json_answer(answer)], b'"embedding"')


ROADS: Mapping[str, Callable[[Path], Awaitable[Road]]] = {
    "plain": _plain,
    "budgets": _budgets,
    "redaction": _redaction,
    "moderation by cache": _moderation,
    "consent": _consent,
    "tokens": _tokens,
    "cell": _cell,
    "WebSocket turn": _websocket,
    "transcription of 1 MB": _transcription,
    "embedding of 8": _embedding,
}
"""How each road is made, given a directory of its own that does not exist yet. The thread of receipts does nothing."""

LARGE = frozenset(("transcription of 1 MB", "embedding of 8"))
"""The roads that cost ten times as much as the others."""
