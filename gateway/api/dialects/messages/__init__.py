"""Anthropic's Messages API (`POST /v1/messages`): the form of Claude Code and the Anthropic SDKs."""

from gateway.api.dialects.messages.dialect import Messages, TokenCount
from gateway.api.dialects.messages.errors import encode_error

__all__ = ["Messages", "TokenCount", "encode_error"]
