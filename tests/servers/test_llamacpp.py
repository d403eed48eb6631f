"""llama.cpp's real server, asked directly and through the gateway: the same answers, and clear refusals for all but the cause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from tests.kit.configs import key_hash
from tests.kit.gateway_process import config_of_one_region, running_gateway
from tests.servers.comparison import FORMS, HELLO, OPTIONS, SAME, Both, called, folded, image
from tests.servers.llamacpp_server import running_llamacpp

pytestmark = pytest.mark.slow("starts llama.cpp")
_OTHER_KEY = "gk-other"
_OWN_REFUSAL = {
    "no message": ([], "messages"),
    "an unknown role": ([{"role": "narrator", "content": "x"}], "messages[0].role"),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("llamacpp")
    with running_llamacpp(folder) as server:
        deployment = {"provider": "llamacpp", "model": "tiny", "endpoint": f"{server}/v1"}
        sees = {**deployment, "capabilities": ["vision"]}
        other = {"keys": [key_hash(_OTHER_KEY)], "region": "world"}
        config = config_of_one_region({"llama": deployment, "sees": sees}, {"clients": {"other": other}})
        path = config.write(folder)
        with running_gateway(path, {"KEY": "a key"}) as gateway, httpx.Client(timeout=60) as http:
            yield Both(server, gateway.url, http)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("messages", SAME)
def test_answer_is_that_of_the_server(both: Both, messages: str, options: str) -> None:
    for form in FORMS.values():
        body = {"messages": SAME[messages], **OPTIONS[options], **form}
        direct, through = both.direct(body), both.through(body)
        assert folded(through) == folded(direct), (form, direct.text, through.text)


@pytest.mark.parametrize("options", OPTIONS)
def test_late_system_message_is_answered_although_the_template_refuses_it(both: Both, options: str) -> None:
    body = {"messages": [HELLO, {"role": "system", "content": "Be brief."}, HELLO], **OPTIONS[options]}
    assert both.direct(body).status_code == 400
    response = both.through(body)
    if options == "a schema that is none":
        assert response.status_code == 400
    else:
        assert response.status_code == 200
        assert response.headers["x-gateway-dropped"] == "messages.role"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_answer_that_has_begun_is_continued_without_its_beginning(both: Both, path: str, stream: bool) -> None:
    """The server's own whole answer repeats the beginning, and its stream does not."""
    body = {"messages": [HELLO, {"role": "assistant", "content": "The answer"}]}
    whole = both.direct(body).json()["choices"][0]["message"]["content"]
    streamed = folded(both.direct({**body, "stream": True, "stream_options": {"include_usage": True}}))
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


def test_arguments_that_are_cut_do_not_end_a_conversation(both: Both) -> None:
    """Its templates may parse the arguments of every call, so it gets an object."""
    assert both.through({"messages": called('{"ci')}).status_code == 200


@pytest.mark.parametrize("case", _OWN_REFUSAL)
def test_request_that_the_server_misreads_is_refused_with_its_place(both: Both, case: str) -> None:
    messages, place = _OWN_REFUSAL[case]
    response = both.through({"messages": messages})
    assert (response.status_code, response.json()["error"]["param"]) == (400, place)


def test_bad_requests_of_one_client_cost_another_one_nothing(both: Both) -> None:
    numbers = count()
    statuses = []
    for _ in range(20):
        for _ in range(20):
            body = {"messages": image(next(numbers))}
            assert both.through(body, _OTHER_KEY, "sees").status_code >= 400
        good = {"messages": [{"role": "user", "content": f"Hello {next(numbers)}"}]}
        statuses.append(both.through(good, assistant="sees").status_code)
    assert both.direct({"messages": image(0)}).status_code == 500
    assert statuses == [200] * 20
