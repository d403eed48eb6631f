"""Events, labels and records of the answers that dialects write."""

from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from gateway.model.region_text import Label, Locale
from gateway.policy.labels import Labelling, labelling_of
from providers import chat
from providers.failures import Failure, FailureKind

OPENED = chat.Opened("id-1", "model-1", 7)
LOST = chat.Failed(Failure(FailureKind.INTERRUPTED, "the connection to the provider broke"))
ASK = chat.ChatRequest("assistant", (chat.UserMessage("Hi"),), stream=True)
WORDS = "内容由AI生成"
CN = Label("cn-gb45438", WORDS, "always", "0011")
PLAIN = AnswerStyle(include_usage=True)


def labelling(request: chat.ChatRequest = ASK, *labels: Label) -> Labelling:
    """Return what an answer in Chinese is labelled with."""
    found = labelling_of(Locale("zh", labels or (CN,)), request)
    assert found is not None
    return found


LABELLED = AnswerStyle(labelling=labelling())


def record() -> Record:
    """Return a record of its own."""
    return Record("req_1", 0.0, "t")


def completion_of(
    message: chat.AssistantMessage | str, reason: chat.FinishReason = "stop", usage: chat.Usage | None = None
) -> chat.ChatCompletion:
    """Return an answer with one choice."""
    said = chat.AssistantMessage(message) if isinstance(message, str) else message
    return chat.ChatCompletion("id-1", "model-1", 7, (chat.Choice(said, reason),), usage)
