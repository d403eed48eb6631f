"""llama.cpp's real server, asked directly and through the gateway: the same answers, and clear refusals for all but the cause."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from tests.kit.configs import key_hash
from tests.kit.gateway_process import APP_KEY, config_of_one_region, running_gateway
from tests.servers.llamacpp_server import CONTEXT_TOKENS, running_llamacpp

pytestmark = pytest.mark.slow("starts llama.cpp")
_OTHER_KEY = "gk-other"
_HELLO = {"role": "user", "content": "Hello"}
_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": _PARAMETERS}}


def _called(arguments: str) -> list[dict[str, Any]]:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sun"}
    return [_HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}, result]


def _image(number: int) -> list[dict[str, Any]]:
    url = {"url": "data:image/png;base64,iVBORw0KGgo="}
    return [
        {"role": "user", "content": [{"type": "text", "text": f"{number}"}, {"type": "image_url", "image_url": url}]}
    ]


_SAME: dict[str, list[dict[str, Any]]] = {
    "a text": [_HELLO],
    "a system message": [{"role": "system", "content": "Be brief."}, _HELLO],
    "a developer message": [{"role": "developer", "content": "Be brief."}, _HELLO],
    "turns": [_HELLO, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "And now?"}],
    "a part": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    "text of many languages": [{"role": "user", "content": "Grüß 你好 🙂 \0"}],
    "the result of a call": _called('{"city":"Ulm"}'),
    "an empty text": [{"role": "user", "content": ""}],
    "a prompt that is too long": [{"role": "user", "content": "long " * CONTEXT_TOKENS}],
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "stop": {"stop": ["e"]},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "json_object": {"response_format": {"type": "json_object"}},
    "a schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": _PARAMETERS}}
    },
    "a schema that is none": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
    },
    "tools": {"tools": [_TOOL]},
    "a forced call": {"tools": [_TOOL], "tool_choice": "required"},
    "penalties": {"frequency_penalty": 0.5, "presence_penalty": 0.2, "seed": 3},
    "a warm sample": {"temperature": 0.9, "top_p": 0.8, "seed": 7},
    "more than the context has": {"max_tokens": 5 * CONTEXT_TOKENS},
}
_OWN_REFUSAL = {
    "arguments that are cut": (_called('{"ci'), "messages[1].tool_calls[0].function.arguments"),
    "no message": ([], "messages"),
    "an unknown role": ([{"role": "narrator", "content": "x"}], "messages[0].role"),
}


class _Both:
    """The server and a gateway before it; each request goes to one of them."""

    def __init__(self, server: str, gateway: str, http: httpx.Client) -> None:
        self.server = server + "/v1/chat/completions"
        self.gateway = gateway
        self._http = http

    def direct(self, body: dict[str, Any]) -> httpx.Response:
        return self._http.post(self.server, json=_complete(body) | {"model": "tiny"})

    def through(
        self, body: dict[str, Any], key: str = APP_KEY, assistant: str = "llama", path: str = "/v1/chat/completions"
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return self._http.post(self.gateway + path, json=_complete(body) | {"model": assistant}, headers=headers)


def _complete(body: dict[str, Any]) -> dict[str, Any]:
    return {"temperature": 0, "max_tokens": 12} | body


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Both]:
    folder = tmp_path_factory.mktemp("llamacpp")
    with running_llamacpp(folder) as server:
        deployment = {"provider": "llamacpp", "model": "tiny", "endpoint": f"{server}/v1"}
        sees = {**deployment, "capabilities": ["vision"]}
        other = {"keys": [key_hash(_OTHER_KEY)], "region": "world"}
        config = config_of_one_region({"llama": deployment, "sees": sees}, {"clients": {"other": other}})
        path = config.write(folder)
        with running_gateway(path, {"KEY": "a key"}) as gateway, httpx.Client(timeout=60) as http:
            yield _Both(server, gateway.url, http)


def _folded(response: httpx.Response) -> Any:
    """Return what a client gets, alike for a stream and a whole answer: choices and usage, or whether it was refused."""
    if response.status_code != 200:
        return response.status_code // 100
    if not response.headers["content-type"].startswith("text/event-stream"):
        events = [response.json()]
    else:
        events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith('data: {"')]
    choices: dict[int, Any] = defaultdict(lambda: {"text": "", "calls": defaultdict(str), "tokens": [], "finish": None})
    usage = None
    for event in events:
        usage = event.get("usage") or usage
        for one in event["choices"]:
            choice, said = choices[one["index"]], one.get("message") or one["delta"]
            choice["text"] += said.get("content") or ""
            choice["finish"] = one.get("finish_reason") or choice["finish"]
            choice["tokens"] += [token["token"] for token in (one.get("logprobs") or {}).get("content") or []]
            for at, call in enumerate(said.get("tool_calls") or []):
                function = call["function"]
                choice["calls"][call.get("index", at)] += function.get("name", "") + function.get("arguments", "")
    assert usage is not None
    return dict(choices), usage["prompt_tokens"], usage["completion_tokens"]


@pytest.mark.parametrize("options", _OPTIONS)
@pytest.mark.parametrize("messages", _SAME)
def test_answer_is_that_of_the_server(both: _Both, messages: str, options: str) -> None:
    for form in ({}, {"stream": True, "stream_options": {"include_usage": True}}):
        body = {"messages": _SAME[messages], **_OPTIONS[options], **form}
        direct, through = both.direct(body), both.through(body)
        assert _folded(through) == _folded(direct), (form, direct.text, through.text)


@pytest.mark.parametrize("options", _OPTIONS)
def test_late_system_message_is_answered_although_the_template_refuses_it(both: _Both, options: str) -> None:
    body = {"messages": [_HELLO, {"role": "system", "content": "Be brief."}, _HELLO], **_OPTIONS[options]}
    assert both.direct(body).status_code == 400
    response = both.through(body)
    if options == "a schema that is none":
        assert response.status_code == 400
    else:
        assert response.status_code == 200
        assert response.headers["x-gateway-dropped"] == "messages.role"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_answer_that_has_begun_is_continued_without_its_beginning(both: _Both, path: str, stream: bool) -> None:
    """The server's own whole answer repeats the beginning, and its stream does not."""
    body = {"messages": [_HELLO, {"role": "assistant", "content": "The answer"}]}
    whole = both.direct(body).json()["choices"][0]["message"]["content"]
    streamed = _folded(both.direct({**body, "stream": True, "stream_options": {"include_usage": True}}))
    rest = streamed[0][0]["text"]
    assert whole == "The answer" + rest
    response = both.through({**body, "stream": stream}, path=path)
    if not stream:
        answer = response.json()
        got = answer["choices"][0]["message"]["content"] if "choices" in answer else answer["content"][0]["text"]
    else:
        events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
        deltas = [event["choices"][0]["delta"] for event in events if event.get("choices")]
        deltas += [event["delta"] for event in events if event.get("type") == "content_block_delta"]
        got = "".join(delta.get("content") or delta.get("text") or "" for delta in deltas)
    assert got == rest


@pytest.mark.parametrize("case", _OWN_REFUSAL)
def test_request_that_the_server_misreads_is_refused_with_its_place(both: _Both, case: str) -> None:
    messages, place = _OWN_REFUSAL[case]
    response = both.through({"messages": messages})
    assert (response.status_code, response.json()["error"]["param"]) == (400, place)


def test_bad_requests_of_one_client_cost_another_one_nothing(both: _Both) -> None:
    numbers = count()
    statuses = []
    for _ in range(20):
        for _ in range(20):
            body = {"messages": _image(next(numbers))}
            assert both.through(body, _OTHER_KEY, "sees").status_code >= 400
        good = {"messages": [{"role": "user", "content": f"Hello {next(numbers)}"}]}
        statuses.append(both.through(good, assistant="sees").status_code)
    assert both.direct({"messages": _image(0)}).status_code == 500
    assert statuses == [200] * 20
