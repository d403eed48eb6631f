"""The canonical chat: requests, answers and stream events in the shape of OpenAI's chat completions.

Every adapter translates between these values and its wire format. A `ChatRequest` is a client's request, a
`ChatCompletion` is a whole answer, and a stream is a sequence of `StreamEvent`s that ends with exactly one terminal
event, `Finished` or `Failed`. This package depends on no provider, no JSON and no HTTP. `providers.openai_json`
converts the values to OpenAI's JSON and back.
"""

from providers.chat.answers import CLAUDE_TIERS as CLAUDE_TIERS
from providers.chat.answers import SERVICE_TIERS as SERVICE_TIERS
from providers.chat.answers import AnswerRefused as AnswerRefused
from providers.chat.answers import ChatCompletion as ChatCompletion
from providers.chat.answers import Choice as Choice
from providers.chat.answers import FinishReason as FinishReason
from providers.chat.answers import Logprobs as Logprobs
from providers.chat.answers import ServiceTier as ServiceTier
from providers.chat.answers import Usage as Usage
from providers.chat.answers import summed as summed
from providers.chat.events import AnnotationsDelta as AnnotationsDelta
from providers.chat.events import AudioDelta as AudioDelta
from providers.chat.events import ChoiceEvent as ChoiceEvent
from providers.chat.events import ChoiceFinish as ChoiceFinish
from providers.chat.events import Failed as Failed
from providers.chat.events import Finished as Finished
from providers.chat.events import Heartbeat as Heartbeat
from providers.chat.events import ImageDelta as ImageDelta
from providers.chat.events import Opened as Opened
from providers.chat.events import ReasoningDelta as ReasoningDelta
from providers.chat.events import RefusalDelta as RefusalDelta
from providers.chat.events import SegmentDelta as SegmentDelta
from providers.chat.events import StreamEvent as StreamEvent
from providers.chat.events import TextDelta as TextDelta
from providers.chat.events import TextRun as TextRun
from providers.chat.events import ToolCallDelta as ToolCallDelta
from providers.chat.events import UsageReport as UsageReport
from providers.chat.messages import Annotation as Annotation
from providers.chat.messages import AssistantMessage as AssistantMessage
from providers.chat.messages import AudioPart as AudioPart
from providers.chat.messages import CacheTime as CacheTime
from providers.chat.messages import FilePart as FilePart
from providers.chat.messages import ImagePart as ImagePart
from providers.chat.messages import Message as Message
from providers.chat.messages import Part as Part
from providers.chat.messages import SystemMessage as SystemMessage
from providers.chat.messages import TextPart as TextPart
from providers.chat.messages import Texts as Texts
from providers.chat.messages import ToolCall as ToolCall
from providers.chat.messages import ToolMessage as ToolMessage
from providers.chat.messages import UserMessage as UserMessage
from providers.chat.messages import prompt_text as prompt_text
from providers.chat.messages import said_in as said_in
from providers.chat.messages import text_of as text_of
from providers.chat.requests import AllowedTools as AllowedTools
from providers.chat.requests import ChatRequest as ChatRequest
from providers.chat.requests import JsonObjectFormat as JsonObjectFormat
from providers.chat.requests import JsonSchemaFormat as JsonSchemaFormat
from providers.chat.requests import NamedTool as NamedTool
from providers.chat.requests import ResponseFormat as ResponseFormat
from providers.chat.requests import Tool as Tool
from providers.chat.requests import ToolChoice as ToolChoice
from providers.chat.requests import change_request as change_request
