"""Each server of models, asked directly and through the gateway, about 250 requests: `STEPS=servers make prove`.

The servers are llama.cpp's; vLLM, if VLLM_PYTHON is the path of a Python that has it; and `transformers serve`, if
TRANSFORMERS_PYTHON is. Prints for each server how many answers and refusals are the same, how many differ as `_INTENDED`
states, and each other difference, which is a fault.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.gateway_process import config_of_one_region, running_gateway
from tests.kit.ports import free_port
from tests.servers.comparison import FORMS, HELLO, OPTIONS, SAME, TOOL, Both, called, folded, image
from tests.servers.llamacpp_server import CONTEXT_TOKENS, TEMPLATE, running_llamacpp

pytestmark = [pytest.mark.slow("starts servers of models"), pytest.mark.full]
_START_S = 600
_SYSTEM = {"role": "system", "content": "Be brief."}
_MESSAGES = {
    "two system messages": [_SYSTEM, _SYSTEM, HELLO],
    "a late system message": [HELLO, _SYSTEM, HELLO],
    "two user messages": [HELLO, HELLO],
    "an empty answer": [HELLO, {"role": "assistant", "content": ""}, HELLO],
    "an answer that has begun": [HELLO, {"role": "assistant", "content": "The answer"}],
    "an image": image(1),
    "arguments that are cut": called('{"ci'),
    "no message": [],
    "an unknown role": [{"role": "narrator", "content": "x"}],
}
"""Asked with few options."""
_MORE_OPTIONS: dict[str, dict[str, Any]] = {
    "n": {"n": 2, "temperature": 0.9, "seed": 1},
    "a named call": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
    "no call": {"tools": [TOOL], "tool_choice": "none"},
    "one call at once": {"tools": [TOOL], "parallel_tool_calls": False},
    "no token": {"max_tokens": 0},
    "a bias": {"logit_bias": {"40": 50}},
    "a bias of no token": {"logit_bias": {"99999": 50}},
    "30 logprobs": {"logprobs": True, "top_logprobs": 30},
    "a hot sample": {"temperature": 3.0, "seed": 1},
    "top_p 0": {"top_p": 0},
    "five stops": {"stop": ["a", "b", "c", "d", "e"]},
    "a user": {"user": "u1"},
}
"""Asked with one text."""
_CASES = [(messages, options) for messages in SAME for options in OPTIONS]
_CASES += [(messages, options) for messages in _MESSAGES for options in ("none", "tools")]
_CASES += [("a text", options) for options in _MORE_OPTIONS]

_BY_OPENAI = "it is outside of what OpenAI's API takes, which is the form of a client's request"
_FOR_TEMPLATES = "the gateway fits messages to what the strictest templates take"
_UNABLE = "the server ignores it or fails, and the gateway refuses what a deployment cannot do"
_INTENDED = {
    ".*/(two system messages|a late system message)/.*: [45] -> answer": _FOR_TEMPLATES,
    "(.*/(two user messages|an empty answer)|transformers/a developer message)/.*: answer -> answer": _FOR_TEMPLATES,
    ".*/arguments that are cut/.*: .* -> answer": "templates read arguments, so they get those that are not JSON as an object",
    ".*/(no message|an unknown role)/.*: .* -> 4": _BY_OPENAI,
    ".*/(no token|30 logprobs|a hot sample|five stops)/.*: .* -> 4": _BY_OPENAI,
    "llamacpp/an answer that has begun/.*/whole: answer -> answer": "the server repeats the beginning, but not in a stream",
    "vllm/an answer that has begun/.*: answer -> answer": "the server begins a new turn if it is not told to go on",
    "vllm/.*/stream: an error in the stream -> 4": "it is before the first token, so the status is that of a refusal",
    ".*/an image/.*: .* -> 4": _UNABLE,
    "transformers/an answer that has begun/.*: answer -> 4": _UNABLE,
    "transformers/.*/(a schema|a schema that is none|logprobs|n|a forced call|a named call)/.*: answer -> 4": _UNABLE,
    "transformers/.*/json_object/.*: answer -> .*": "the server ignores it; the gateway asks in words: 5 if the answer is no JSON",
    "transformers/.*/a bias.*: .* -> answer": "the server fails at whole numbers, so the gateway leaves it out and names it",
}
"""The differences that are meant, as a pattern of the case and of both results, each with its reason."""
_VLLM = "vllm.entrypoints.cli.main serve --enforce-eager --dtype float32 --enable-auto-tool-choice --tool-call-parser hermes"
_SERVERS = {
    "llamacpp": ("", ""),
    "vllm": ("VLLM_PYTHON", f"{_VLLM} --max-num-seqs 4 --max-model-len {CONTEXT_TOKENS}"),
    "transformers": ("TRANSFORMERS_PYTHON", "transformers.cli.transformers serve"),
}
"""The variable with the path of the Python, and the server's command."""


@contextmanager
def _running(python: str, folder: Path, command: str) -> Iterator[str]:
    """Make the model in `folder`, start the server of this Python and yield its URL. Its output is `server.log`."""
    subprocess.run([python, str(Path(__file__).with_name("torch_model.py")), str(folder), TEMPLATE], check=True)
    port = str(free_port())
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    own["PATH"] = f"{Path(python).parent}:{os.environ['PATH']}"
    words = [python, "-m", *command.split(), str(folder), "--host", "127.0.0.1", "--port", port]
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(words, env=os.environ | own, stdout=output, stderr=output, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + _START_S
            while not _answers(f"{url}/health"):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the server has not started:\n{log.read_text()[-4000:]}")
                time.sleep(1)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def _asked(send: Callable[[dict[str, Any]], httpx.Response], body: dict[str, Any]) -> tuple[str, Any, str]:
    """Return the kind of the answer, the answer as it is compared, and the begin of its text."""
    try:
        response = send(body)
    except httpx.TransportError as error:
        return type(error).__name__, None, str(error)
    answer = folded(response)
    return "answer" if isinstance(answer, tuple) else str(answer), answer, response.text[:300]


def _compare(provider: str, both: Both) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (messages, options), (form, fields) in product(_CASES, FORMS.items()):
        body = {"messages": (SAME | _MESSAGES)[messages], **(OPTIONS | _MORE_OPTIONS)[options], **fields}
        direct, through = _asked(both.direct, body), _asked(both.through, body)
        case = f"{provider}/{messages}/{options}/{form}: {direct[0]} -> {through[0]}"
        is_intended = any(re.fullmatch(pattern, case) for pattern in _INTENDED)
        result = "same" if direct[:2] == through[:2] else "intended" if is_intended else "faults"
        counts.update(["requests", result])
        if result == "faults":
            print(f"FAULT {case}", *direct[1:], *through[1:], sep="\n  ")
    return counts


@pytest.mark.parametrize("provider", _SERVERS)
def test_answers_and_refusals_are_those_of_the_server(provider: str, tmp_path: Path) -> None:
    variable, command = _SERVERS[provider]
    python = os.environ.get(variable)
    if variable and not python:
        pytest.skip(f"{provider} is not run: {variable} is not set")
    with _running(python, tmp_path, command) if python else running_llamacpp(tmp_path) as url:
        model = str(tmp_path)
        deployment = {"provider": provider, "model": model, "endpoint": f"{url}/v1", "capabilities": ["tools"]}
        config = config_of_one_region({"llama": deployment}).write(tmp_path)
        with running_gateway(config, {"KEY": "a key"}) as gateway, httpx.Client(timeout=120) as http:
            counts = _compare(provider, Both(url, gateway.url, http, model))
    print(f"{provider}:", ", ".join(f"{counts[name]} {name}" for name in ("requests", "same", "intended", "faults")))
    assert counts["faults"] == 0
