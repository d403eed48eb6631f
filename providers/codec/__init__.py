"""The canonical chat as OpenAI's JSON, both ways: requests strictly, answers leniently."""

from providers.codec.answer import encode_completion, encode_usage
from providers.codec.decode_request import decode_request
from providers.codec.encode_request import encode_message, encode_request

__all__ = [
    "decode_request",
    "encode_completion",
    "encode_message",
    "encode_request",
    "encode_usage",
]
