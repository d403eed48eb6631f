"""The request of the page as commands: curl, and Python with the OpenAI SDK."""

from __future__ import annotations

import json
import shlex

QUESTION = "Hello! Who are you?"
TERRITORY_HEADER = "cf-ipcountry"
"""The header with which the page asks as if from a territory. In a demo, every client is a trusted edge."""


def curl_command(url: str, assistant: str, territory: str, question: str) -> str:
    """Return the streamed request as a command for a POSIX shell."""
    body = {"model": assistant, "stream": True, "messages": [{"role": "user", "content": question}]}
    return (
        f"curl -iN {shlex.quote(f'{url}/v1/chat/completions')} \\\n"
        f"  -H 'content-type: application/json' -H {shlex.quote(f'{TERRITORY_HEADER}: {territory}')} \\\n"
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def python_program(url: str, assistant: str, territory: str, question: str) -> str:
    """Return the same request as a program that uses the OpenAI SDK. See `curl_command`."""
    return f"""\
from openai import OpenAI

client = OpenAI(base_url={_literal(f"{url}/v1")}, api_key="demo")
stream = client.chat.completions.create(
    model={_literal(assistant)},
    messages=[{{"role": "user", "content": {_literal(question)}}}],
    extra_headers={{{_literal(TERRITORY_HEADER)}: {_literal(territory)}}},
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
print()
"""


def _literal(text: str) -> str:
    """Return the text as a literal of Python, as JSON quotes it."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
