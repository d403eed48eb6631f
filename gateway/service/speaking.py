"""A request as a region has it asked: without our own labels in its history, with the region's profile before it."""

from __future__ import annotations

from gateway.model.config_version import ConfigVersion, remember
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.model.region_text import Locale
from gateway.policy.labels import without_labels
from gateway.policy.region_text import compose, with_block
from providers.chat import ChatRequest, change_request


def spoken(
    table: ConfigVersion, location: Location, voice: Locale, request: ChatRequest, record: Record
) -> ChatRequest:
    """The request for whoever answers in this region; the profile's version is noted in the record."""
    region = location.region
    if region is not None and region.speech is not None:
        messages = without_labels(request.messages, region.speech)
        if messages is not request.messages:
            request = change_request(request, messages=messages)
    profile = voice.profile
    if profile is None or region is None:
        return request
    block = remember(
        table,
        ("profile", region.name, voice.locale, location.territory, location.preferences),
        lambda: compose(profile, location.territory, location.preferences),
    )
    record.profile = block.name
    return with_block(request, block)
