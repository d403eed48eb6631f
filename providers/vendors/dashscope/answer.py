"""Read DashScope's native answers. They have an answer of its compatible mode in `output`, and other names of counts.

Source: Alibaba Cloud Model Studio API reference (DashScope) and dashscope 2.0.2, read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from providers.catalogue import FactsFile
from providers.chat import ChatCompletion, Usage
from providers.failures import Failure
from providers.json_values import as_map, read_count, read_list, read_map, read_str
from providers.openai_json.read_answer import Answers, ChatReader, read_body, read_usage
from providers.reading.errors import IN_A_STREAM, classify, error_object, holds_error, load_rules
from providers.reading.token_counts import merged
from providers.value import replace
from providers.wire import WireResponse

_FACTS = FactsFile("providers.vendors.dashscope", "dashscope")
_RULE = Answers(message_is_delta=True, may_repeat=True)
_STATUS_COMMENT = "HTTP_STATUS/"


def _sites() -> Iterable[str]:
    return as_map(_FACTS.read().get("sites"))


def dashscope_failure(body: Mapping[str, object], response: WireResponse) -> Failure:
    """Return the failure of an error of the native API (`code` at the top) or of the compatible one."""
    return classify(body, response, load_rules(_FACTS), _sites())


def read_completion(response: WireResponse, model: str) -> ChatCompletion:
    """Read the whole answer of a 2xx body. Raises ProviderFailed."""
    return read_body(_as_openai(error_object(response.body)), response, DashScopeReader(model))


def _as_openai(chunk: Mapping[str, object]) -> Mapping[str, object]:
    """Return an answer, or an event, in the form of chat completions. An error stays as it is."""
    if read_str(chunk, "code") or chunk.get("error"):
        return chunk
    output = read_map(chunk, "output")
    choices = [as_map(choice) for choice in read_list(output, "choices")]
    if not choices and (text := read_str(output, "text")) is not None:
        # The result format `text`, which a model may use whatever is asked for.
        choices = [{"message": {"content": text}, "finish_reason": output.get("finish_reason")}]
    if len(choices) > 1 and all("index" not in choice for choice in choices):
        # If no choice has an index, its position counts, as in the vendor's own SDK.
        choices = [{**choice, "index": position} for position, choice in enumerate(choices)]
    counts = read_map(chunk, "usage")
    details = read_map(counts, "prompt_tokens_details")
    usage = {
        "prompt_tokens": counts.get("input_tokens"),
        "completion_tokens": counts.get("output_tokens"),
        "total_tokens": counts.get("total_tokens"),
        "prompt_tokens_details": details if "cached_tokens" in details else counts,
        "completion_tokens_details": counts.get("output_tokens_details"),
    }
    return {"id": chunk.get("request_id"), "choices": choices, "usage": usage if counts else None}


class DashScopeReader(ChatReader):
    """Read the events of one answer into its `assembler`."""

    def __init__(self, model: str) -> None:
        super().__init__(model, _RULE, load_rules(_FACTS), _sites())
        self._status = IN_A_STREAM
        self._counts: dict[int, Mapping[str, object]] = {}

    def read_comment(self, comment: str) -> None:
        """Read the status of the event from its comment: `HTTP_STATUS/400`."""
        status = comment[len(_STATUS_COMMENT) :].strip() if comment.startswith(_STATUS_COMMENT) else ""
        if len(status) == 3 and status.isascii() and status.isdigit():
            self._status = WireResponse(int(status), {}, b"", 0)

    def read_event(self, chunk: Mapping[str, object], event: str) -> None:
        answer = _as_openai(chunk)
        if event == "error" or self._status.status >= 400 or holds_error(chunk, self.errors):
            self.fail(classify(chunk, self._status, self.errors, self.sites))
            return
        if "output" not in chunk and "usage" not in chunk:
            self.assembler.heartbeat()  # an unknown event
            return
        choices, usage = read_list(answer, "choices"), answer.get("usage")
        if isinstance(usage, dict):
            # Counts are cumulative. If there are several choices, an event of one counts only its output.
            if len(choices) != 1:
                self._counts.clear()
            index = read_count(as_map(choices[0]), "index") if choices else 0
            self._counts[index] = merged(self._counts.get(index, {}), usage)
            self.assembler.usage(self._usage)
        self.read_chunk({**answer, "usage": None})

    def _usage(self) -> Usage:
        counts = [read_usage(usage) for usage in self._counts.values()]
        completion, reasoning = (
            sum(one.completion_tokens for one in counts),
            sum(one.reasoning_tokens for one in counts),
        )
        return replace(counts[-1], completion_tokens=completion, reasoning_tokens=reasoning)
