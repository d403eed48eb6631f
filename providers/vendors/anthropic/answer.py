"""Read Anthropic's whole answers and errors. `formats.claude_answer` reads the messages and events in them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from providers.adapter import Target
from providers.catalogue import FactsFile
from providers.chat import ChatCompletion
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.claude_answer import MessageReader
from providers.json_values import (
    read_str,
    with_exact_integers,
)
from providers.reading.errors import IN_A_STREAM, error_object, failure, load_rules
from providers.reading.errors import classify as classify_by_rules
from providers.reading.folding import fold
from providers.wire import WireResponse

_FACTS = FactsFile("providers.vendors.anthropic", "anthropic")
_OF_ALIBABA = FactsFile("providers.vendors.dashscope", "dashscope")


def classify(body: Mapping[str, object], response: WireResponse) -> Failure:
    """Return the failure of an error. Alibaba's Anthropic-compatible endpoint has the form of its native API."""
    is_native = not body.get("error") and read_str(body, "code")
    return classify_by_rules(body, response, load_rules(_OF_ALIBABA if is_native else _FACTS))


def reader_of(target: Target) -> MessageReader:
    """Return a reader of one answer of this vendor."""
    return MessageReader(target, partial(classify, response=IN_A_STREAM))


def read_completion(response: WireResponse, target: Target) -> ChatCompletion:
    """Read the whole answer of a 2xx body.

    Raises:
        ProviderFailed: The body is an error with status 200, or not a message.
    """
    body = error_object(response.body)
    if body.get("error"):
        raise ProviderFailed(classify(body, response))
    if body.get("type") != "message" or not isinstance(body.get("content"), list):
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no message in the answer"))
    reader = reader_of(target)
    # Here a call's arguments are part of the answer's JSON. Their numbers must not be rounded.
    reader.read_message(with_exact_integers(body, response.body) if b"tool_use" in response.body else body)
    return fold(reader.assembler.take())
