"""The canonical chat: requests, answers and stream events in the shape of OpenAI's chat completions.

Every adapter translates between these values and its wire format. A `ChatRequest` is a client's request, a
`ChatCompletion` is a whole answer, and a stream is a sequence of `StreamEvent`s that ends with exactly one terminal
event, `Finished` or `Failed`. This package depends on no provider, no JSON and no HTTP. `providers.openai_json`
converts the values to OpenAI's JSON and back.
"""

from __future__ import annotations

from providers.chat.answers import AnswerRefused, ChatCompletion, Choice, FinishReason, Logprobs, Usage
from providers.chat.events import (
    AnnotationsDelta,
    ChoiceFinish,
    Failed,
    Finished,
    Heartbeat,
    Opened,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
    UsageReport,
)
from providers.chat.messages import (
    Annotation,
    AssistantMessage,
    AudioPart,
    CacheTime,
    FilePart,
    ImagePart,
    Message,
    Part,
    SystemMessage,
    TextPart,
    Texts,
    ToolCall,
    ToolMessage,
    UserMessage,
    prompt_text,
    said_in,
    text_of,
)
from providers.chat.requests import (
    AllowedTools,
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    ResponseFormat,
    Tool,
    ToolChoice,
    change_request,
)

__all__ = [
    "AllowedTools",
    "Annotation",
    "AnnotationsDelta",
    "AnswerRefused",
    "AssistantMessage",
    "AudioPart",
    "CacheTime",
    "ChatCompletion",
    "ChatRequest",
    "Choice",
    "ChoiceFinish",
    "Failed",
    "FilePart",
    "FinishReason",
    "Finished",
    "Heartbeat",
    "ImagePart",
    "JsonObjectFormat",
    "JsonSchemaFormat",
    "Logprobs",
    "Message",
    "NamedTool",
    "Opened",
    "Part",
    "ReasoningDelta",
    "RefusalDelta",
    "ResponseFormat",
    "StreamEvent",
    "SystemMessage",
    "TextDelta",
    "TextPart",
    "TextRun",
    "Texts",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolMessage",
    "Usage",
    "UsageReport",
    "UserMessage",
    "change_request",
    "prompt_text",
    "said_in",
    "text_of",
]
