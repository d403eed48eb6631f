"""Moderations: canonical requests and verdicts, the optional protocol of an adapter, OpenAI's format, and guard models.

Adapters whose provider classifies content satisfy `Moderates`.
"""

from providers.moderations.contract import Moderates, ModerationFormat, known_categories, moderation_format
from providers.moderations.guard_models import GUARD_KINDS, GuardKind, GuardModel, guard_kind_of
from providers.moderations.openai_format import OpenAIModerations, decode_moderation_request, encode_moderations
from providers.moderations.values import CATEGORIES, ModerationAnswer, ModerationRequest, ModerationResult

__all__ = [
    "CATEGORIES",
    "GUARD_KINDS",
    "GuardKind",
    "GuardModel",
    "Moderates",
    "ModerationAnswer",
    "ModerationFormat",
    "ModerationRequest",
    "ModerationResult",
    "OpenAIModerations",
    "decode_moderation_request",
    "encode_moderations",
    "guard_kind_of",
    "known_categories",
    "moderation_format",
]
