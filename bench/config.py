"""The production-like config for measuring the gateway, with the provider stub at every deployment's origin.
It has hashed client keys, an edge that sends the country, regions with boundaries, and a fallback for each route. Two
numbers make it grow: more deployments (two for each assistant) and more keys (one for each client). With `accounts`
each client has limits, and four budgets: two of its own and two of its project, none of which is ever spent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["ASSISTANTS", "CLIENT_KEY", "ENVIRON", "chat_body", "client_headers", "production_config", "request_for"]

CLIENT_KEY = "gk-bench-of-an-ordinary-length-0123456789abcdef"
ENVIRON = {"BENCH_OPENAI_KEY": "sk-bench-openai", "BENCH_GEMINI_KEY": "bench-gemini"}
# The assistant, its provider, the model, and the port of the stub that answers.
ASSISTANTS = {
    "assistant": ("openai", "gpt-4o", "fast"),
    "assistant-folded": ("openai", "gpt-4o", "fast"),
    "assistant-gemini": ("gemini", "gemini-3.8-flash", "fast"),
    "assistant-paced": ("openai", "gpt-4o", "paced"),
    "assistant-held": ("openai", "gpt-4o", "held"),
}
_PREFIXES = {"openai": "/v1", "gemini": "/v1beta"}
_HEAD = """
version: 1
cell: {{territory: DE}}
regions:
  cn: {{territories: [CN], boundary: [CN], transit: [DE]}}
  eu: {{territories: ["@EEA", CH], boundary: ["@EEA", CH]}}
  us: {{territories: [US], boundary: [US], transit: [DE]}}
  default: {{territories: ["*"], boundary: ["*"]}}
blocked: [CU, IR, KP, SY]
location:
  signals: [api_key, edge_header]
  edges: [{{from: [127.0.0.0/8], country: CF-IPCountry, client_ip: CF-Connecting-IP}}]
resilience: {{connect: 5s, first_token: 10s, commit: 55s, idle: 30s, total: 600s}}
clients:
{clients}
assistants:
{assistants}
deployments:
{deployments}
"""
_ACCOUNTS = f"""
catalogue: {{models: "{Path(__file__).with_name("models.yaml")}"}}
projects: {{shop: {{budgets: [{{amount: 1000000 EUR, per: month}}, {{amount: 5000000 EUR, per: total}}]}}}}
usage: {{currency: EUR, rates: {{USD: 0.92, as_of: 2026-11-20}}, timezone: Europe/Berlin}}
"""
_CLIENT_ACCOUNTS = (
    ", project: shop, limits: {rpm: 1000000, tpm: 1000000000, concurrent: 10000}"
    ", budgets: [{amount: 1000000 EUR, per: day}, {tokens: 900000000000, per: month}]"
)


def production_config(
    ports: Mapping[str, int], deployments: int = 10, keys: int = 10, *, accounts: bool = False
) -> str:
    """Return the config as YAML. `ports` are those of the stub: fast, paced, held. At least two deployments for each of
    ASSISTANTS are created. `assistant-folded` is asked for streams, whatever its clients request.
    """
    assistants, listed = [], []
    for name, (provider, model, port) in _assistants(deployments).items():
        assistants.append(f"  {name}: {{routes: {{eu: [{name}-1, {name}-2], default: [{name}-2, {name}-1]}}}}")
        fold = ", fold: true" if name == "assistant-folded" else ""
        listed += [_deployment(f"{name}-{number}", provider, model, ports[port], fold) for number in (1, 2)]
    hashes = [hashlib.sha256(key.encode()).hexdigest() for key in _keys(keys)]
    more = _CLIENT_ACCOUNTS if accounts else ""
    clients = [f'  client-{number}: {{keys: ["sha256:{digest}"]{more}}}' for number, digest in enumerate(hashes)]
    text = _HEAD.format(clients="\n".join(clients), assistants="\n".join(assistants), deployments="\n".join(listed))
    return text + _ACCOUNTS if accounts else text


def _assistants(deployments: int) -> dict[str, tuple[str, str, str]]:
    others = {f"other-{number}": ASSISTANTS["assistant"] for number in range(deployments // 2 - len(ASSISTANTS))}
    return {**others, **ASSISTANTS}


def _keys(count: int) -> list[str]:
    return [*(f"gk-other-{number}" for number in range(count - 1)), CLIENT_KEY]


def _deployment(name: str, provider: str, model: str, port: int, more: str) -> str:
    endpoint = f"http://127.0.0.1:{port}{_PREFIXES[provider]}"
    key = f"${{BENCH_{provider.upper()}_KEY}}"
    kept = ", accept_ended: true" if model == "gpt-4o" else ""  # an old clone still measures after the model's end
    return (
        f'  {name}: {{provider: {provider}, model: {model}, endpoint: "{endpoint}", stores: DE, processes: DE, '
        f'api_key: "{key}"{kept}{more}}}'
    )


def chat_body(model: str, *, stream: bool) -> bytes:
    """Return a short chat as an OpenAI client sends it."""
    body: dict[str, object] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are the assistant of a phone. Answer in two sentences at most."},
            {"role": "user", "content": "What does a gateway in front of several providers of assistants do?"},
        ],
        "temperature": 0.7,
        "max_completion_tokens": 256,
    }
    if stream:
        body["stream"] = True
    return json.dumps(body, separators=(",", ":")).encode()


def request_for(dialect: str, model: str, *, stream: bool) -> tuple[str, bytes]:
    """Return the path and the body of the same chat in another dialect: chat, Responses, Messages or Gemini."""
    chat = json.loads(chat_body(model, stream=stream))
    system, user = (message["content"] for message in chat["messages"])
    temperature, most_tokens = chat["temperature"], chat["max_completion_tokens"]
    body: dict[str, object] = {"model": model, "temperature": temperature}
    match dialect:
        case "Responses":
            path = "/v1/responses"
            body |= {"input": chat["messages"], "max_output_tokens": most_tokens}
        case "Messages":
            path = "/v1/messages"
            body |= {"system": system, "messages": chat["messages"][1:], "max_tokens": most_tokens}
        case "Gemini":
            method = "streamGenerateContent?alt=sse" if stream else "generateContent"
            path = f"/v1beta/models/{model}:{method}"
            body = {
                "systemInstruction": {"parts": [{"text": system}]},
                "contents": [{"role": "user", "parts": [{"text": user}]}],
                "generationConfig": {"temperature": temperature, "maxOutputTokens": most_tokens},
            }
        case _:
            return "/v1/chat/completions", chat_body(model, stream=stream)
    if stream and dialect != "Gemini":
        body["stream"] = True
    return path, json.dumps(body, separators=(",", ":")).encode()


def client_headers(key: str = CLIENT_KEY) -> dict[str, str]:
    """Return the headers that a client library and an edge send."""
    return {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "bench/1",
        "authorization": f"Bearer {key}",
        "cf-ipcountry": "DE",
        "cf-connecting-ip": "192.0.2.1",
    }
