"""Find a client's assistant, and suggest names for an unknown one."""

import pytest

from gateway.service.assistants import AssistantNotFound, assistants_of, find_assistant, not_found
from tests.kit.configs import BASE, table_of

ROUTES = BASE.data["assistants"]["assistant"]["routes"]
TABLE = table_of(BASE.merge({"assistants": {"assistants": {"routes": ROUTES}}}))
CLIENTS = {client.name: client for client in TABLE.clients.values()}


def test_client_finds_and_gets_suggestions_of_its_own_assistants_only() -> None:
    everything = {"assistant", "gpt-4o", "assistants"}
    for name, known in (("", everything), ("backend", everything), ("app", everything - {"assistants"})):
        client = CLIENTS.get(name)
        assert assistants_of(TABLE, client).keys() == known
        for name in everything | {"nobody", "assistantt"}:
            if name in known:
                assert find_assistant(TABLE, client, name) is TABLE.assistants[name]
                continue
            with pytest.raises(AssistantNotFound) as raised:
                find_assistant(TABLE, client, name)
            assert known.issuperset(raised.value.nearest)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("assistent", ("assistant",)),
        ("ASSISTANT", ("assistant",)),
        ("openai/assistant", ("assistant",)),
        ("GPT-4o", ("gpt-4o",)),
        ("siri", ("Siri",)),
        ("SIR", ("Siri",)),
        ("nothing like it", ()),
        ("", ()),
        ("x" * 100_000, ()),
    ],
)
def test_nearest_names_are_suggested_in_any_case(name: str, nearest: tuple[str, ...]) -> None:
    error = not_found(name, ["gpt-4o", "assistant", "Siri"])
    assert (error.nearest, error.param) == (nearest, "model")


def test_alias_with_a_star_is_accepted_and_not_listed() -> None:
    aliases = ["claude-assistant", "claude-*", "claude-haiku-*"]
    other = {"assistants": {"assistants": {"routes": ROUTES, "aliases": aliases[2:]}}}
    table = table_of(BASE.merge(other, {"assistants": {"assistant": {"aliases": aliases[:2]}}}))
    assert set(assistants_of(table, None)) == {"assistant", "claude-assistant", "assistants"}
    assert find_assistant(table, None, "claude-sonnet-5").name == "assistant"
    assert find_assistant(table, None, "claude-haiku-4-5").name == "assistants"
    clients = {client.name: client for client in table.clients.values()}
    with pytest.raises(AssistantNotFound):
        find_assistant(table, clients["app"], "claude-haiku-4-5")
    with pytest.raises(AssistantNotFound):
        find_assistant(table, None, "gpt-4o")
