"""A full quota in a route: a barrier, a weighted step, a judge, a repeated call and a stream that breaks off."""

from pathlib import Path
from typing import Any

import pytest

from gateway.usage.accounting import Accounting
from gateway.usage.journal import Journal
from tests.kit.barriers import FREE, KEY, PICTURE, Providers, barrier, broken_off, failing, served_by
from tests.kit.case_files import cases
from tests.kit.chat_http import CHAT
from tests.kit.input_gateway import InputGateway
from tests.kit.judged_chats import World, ask
from tests.kit.judged_chats import gateway as gateway_of

HELLO = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}]}


def with_quota(*names: str, calls: int = 1, **rules: Any) -> dict[str, Any]:
    """Return a patch with a quota of so many calls a day for each of these deployments."""
    return {
        "quotas": {f"of-{name}": {"requests": {"day": calls}, **rules} for name in names},
        "deployments": {name: {"quota": f"of-{name}"} for name in names},
    }


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    journal = Journal.open(tmp_path)
    yield journal
    journal.close()


def served(journal: Journal, providers: Providers, *patches: Any) -> InputGateway:
    gateway = served_by(providers, *patches)
    gateway.gateway._executor.accounting = Accounting(journal, b"k" * 32)
    return gateway


def asked(gateway: InputGateway, body: dict[str, Any] | None = None) -> str:
    """Return the deployment that answers, or the code of the error."""
    answer = gateway.post(CHAT, body or HELLO, KEY)
    return answer.headers["x-gateway-deployment"] if answer.status_code == 200 else answer.json()["error"]["code"]


def test_barrier_stays_closed_while_a_private_step_has_no_room(journal: Journal) -> None:
    providers = Providers()
    gateway = served(journal, providers, with_quota("house"), FREE)
    assert asked(gateway) == "house"
    assert asked(gateway) == "overloaded"
    assert providers.names == ["house"]


def test_failure_of_another_private_step_opens_no_barrier_for_a_full_one(journal: Journal) -> None:
    providers = Providers({"small": failing(500)})
    route = barrier("failure", before=("house", "small"))
    gateway = served(journal, providers, with_quota("house"), FREE, route)
    assert asked(gateway) == "house"
    assert asked(gateway) == "provider_error"
    assert providers.names == ["house", "small"]


def test_barrier_opens_for_what_no_private_step_can_do_whatever_is_full(journal: Journal) -> None:
    providers = Providers()
    gateway = served(journal, providers, with_quota("house"), FREE)
    assert asked(gateway) == "house"
    assert asked(gateway, {**HELLO, **PICTURE}) == "cloud"


def test_step_after_a_full_member_is_the_next_one_and_not_another_member(journal: Journal) -> None:
    providers = Providers()
    route = {"assistants": {"assistant": {"routes": {"default": [{"house": 1, "small": 1}, "other"]}}}}
    gateway = served(journal, providers, with_quota("house", "small", calls=2), route)
    answered = [asked(gateway, {**HELLO, "user": f"user {number}"}) for number in range(12)]
    assert answered.count("house") == answered.count("small") == 2
    assert set(answered) == {"house", "small", "other"}


def test_second_key_of_a_failed_call_counts_too(journal: Journal) -> None:
    providers = Providers({"house": failing(500)})
    retries = {"resilience": {"attempts": {"per_deployment": 2}}}
    route = {"assistants": {"assistant": {"routes": {"default": ["house", "other"]}}}}
    gateway = served(journal, providers, with_quota("house", calls=3), retries, route)
    assert [asked(gateway) for _ in range(3)] == ["other"] * 3
    # Each call counts, the retry too, and a retry without room goes on to the next step.
    assert providers.names == ["house", "house", "other", "house", "other", "other"]


@pytest.mark.parametrize("stream", [False, True])
@cases("judges", "on_failure", "answered", "judged")
def test_judge_without_room_has_failed(
    journal: Journal, judges: list[str], on_failure: str, answered: list[int], judged: int, stream: bool
) -> None:
    """The quota of `judge` has room for the input and the output of one chat. No judge is kept out by `keep`."""
    world = World()
    rule = {"regions": {"default": {"moderation": {"input": judges, "output": judges, "on_failure": on_failure}}}}
    full = with_quota("judge", calls=2, keep={"low": "90%", "normal": "90%"})
    gateway = gateway_of(world, rule, full)
    gateway.gateway._executor.accounting = Accounting(journal, b"k" * 32)
    assert [ask(gateway, "chat", stream=stream).status_code for _ in range(3)] == answered
    assert len(world.judged) == judged
    assert gateway.gateway._health.snapshot(gateway.gateway.config) == {}, "no evidence, no cooldown"


def test_stream_that_breaks_off_goes_on_at_the_next_step_with_room(journal: Journal) -> None:
    providers = Providers({"house": lambda _: broken_off("One ")})
    route = {"assistants": {"assistant": {"routes": {"default": ["house", "small", "other"]}, "resume": True}}}
    gateway = served(journal, providers, with_quota("small", "other"), route)
    texts = [gateway.post(CHAT, {**HELLO, "stream": True}, KEY).text for _ in range(3)]
    assert providers.names == ["house", "small", "house", "other", "house"]
    assert [("small" in text, "other" in text, "overloaded" in text) for text in texts] == [
        (True, False, False),
        (False, True, False),
        (False, False, False),
    ], texts[2]
