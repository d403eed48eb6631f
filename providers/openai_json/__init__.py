"""Convert the canonical chat to OpenAI's JSON and back. Requests are read strictly, answers leniently."""

from providers.openai_json.decode_request import decode_request
from providers.openai_json.encode_answer import encode_completion, encode_usage
from providers.openai_json.encode_request import encode_message, encode_request

__all__ = ["decode_request", "encode_completion", "encode_message", "encode_request", "encode_usage"]
