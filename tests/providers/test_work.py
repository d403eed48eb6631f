"""The work of single functions that read what a client or a provider sends grows no faster than what was sent."""

from collections.abc import Callable
from typing import Any

import pytest

from evaluation.checks import Schema, letter_of
from evaluation.texts import bare, numbers_in, words_of
from gateway.api.dialects.gemini.contents import ContentReader
from gateway.api.dialects.gemini.fields import DroppedFields
from providers.catalogue.takes import Takes
from providers.chat import AssistantMessage, ChatRequest, SystemMessage, TextPart, ToolCall, ToolMessage, UserMessage
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.formats.fitting import fit
from providers.formats.role_alternation import alternate_roles
from providers.formats.tool_calls import turns_with_whole_results
from providers.inputs.audio.form import parse_form
from providers.json_values import unfenced
from tests.kit.growth import MOST_GROWTH, growth

_FIRST = Takes(system="first")
_TEXT = "word " * 20


def _calls(count: int) -> tuple[AssistantMessage, ...]:
    return (AssistantMessage(None, tool_calls=tuple(ToolCall(f"c{at}", "f", "{}") for at in range(count))),)


def _results(count: int) -> tuple[ToolMessage, ...]:
    return tuple(ToolMessage(f"c{at}", "x") for at in reversed(range(count)))


def _answered(count: int, ids: Callable[[int], dict[str, str]]) -> list[Any]:
    calls = [{"functionCall": {"name": "f", **ids(at)}} for at in range(count)]
    # A part of a conversation may have more calls than a turn.
    turns = [{"role": "model", "parts": calls[at : at + 500]} for at in range(0, count, 500)]
    responses = [{"functionResponse": {"name": "f", "response": {}, **ids(at)}} for at in reversed(range(count))]
    return [*turns, {"role": "user", "parts": responses}]


def _read_contents(contents: Any) -> object:
    return ContentReader(DroppedFields(), is_partial=True).read(contents, "contents")


def _form(parameters: str) -> bytes:
    return f'--x\r\ncontent-disposition: form-data; name="a"{parameters}\r\n\r\nt\r\n--x--\r\n'.encode()


CASES: dict[str, tuple[Callable[[int], Any], Callable[[Any], object], int]] = {
    "turns of the user, joined for one system message": (
        lambda n: ChatRequest("m", (UserMessage(_TEXT),) * n),
        lambda request: fit(request, _FIRST),
        1024,
    ),
    "turns of the user with parts": (
        lambda n: ChatRequest("m", (UserMessage((TextPart(_TEXT), TextPart("b"))),) * n),
        lambda request: fit(request, _FIRST),
        1024,
    ),
    "late system messages between turns of the user": (
        lambda n: ChatRequest("m", (UserMessage("a"), *(SystemMessage(_TEXT), UserMessage(_TEXT)) * n)),
        lambda request: fit(request, _FIRST),
        1024,
    ),
    "turns of the user that alternate with nothing": (
        lambda n: (UserMessage(_TEXT),) * n,
        lambda messages: alternate_roles(messages, continues=False),
        1024,
    ),
    "turns of the model with calls": (
        lambda n: _calls(4) * n,
        lambda messages: alternate_roles(messages, continues=False),
        1024,
    ),
    "results in the reverse order of their calls": (
        lambda n: (*_calls(n), *_results(n)),
        lambda messages: [*turns_with_whole_results(messages)],
        256,
    ),
    "results with the id of one call": (
        lambda n: (AssistantMessage(None, tool_calls=(ToolCall("c", "f", "{}"),) * n), *(ToolMessage("c", "x"),) * n),
        lambda messages: [*turns_with_whole_results(messages)],
        256,
    ),
    "Gemini's responses in the reverse order of their calls": (
        lambda n: _answered(n, lambda at: {"id": f"i{at}"}),
        _read_contents,
        256,
    ),
    "Gemini's calls and responses without ids": (lambda n: _answered(n, lambda at: {}), _read_contents, 256),
    "Gemini's calls with ids that the gateway would give": (
        lambda n: _answered(n, lambda at: {"id": f"call_{n + at}"} if at < n // 2 else {}),
        _read_contents,
        256,
    ),
    "a fence, then white space": (lambda n: f"```json{' ' * n}x```", unfenced, 4096),
    "a fence, then lines": (lambda n: "```" + "\n" * n + "x", unfenced, 4096),
    "a checked answer with white space": (lambda n: "```" + " \n" * n + "x", Schema({}).fault, 256),
    "an answer with a letter, and white space": (
        lambda n: "answer" + " " * n + r"\boxed{" + " " * n,
        lambda text: letter_of(text, 4),
        256,
    ),
    "parameters of a form, with white space": (
        lambda n: _form(f";a={' ' * n}!") * 1,
        lambda body: [parse_form(body, "x") for _ in range(20)],
        900,
    ),
    **{
        f"{act.__name__} of {name}": (lambda n, text=text: "a" + text * n, act, 512)
        for name, text in {
            "combining marks": "\u0301\u0316",
            "marks that become several": "\u0f73",
            "white space": " \n",
            "digits": "1,",
            "hyphens": "-a",
        }.items()
        for act in (bare, words_of, numbers_in)
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_twice_as_much_takes_at_most_a_little_more_than_twice_the_work(name: str) -> None:
    make, act, size = CASES[name]
    assert growth(make, act, size, InvalidRequest, UnsupportedFeature) <= MOST_GROWTH
