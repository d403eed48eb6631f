"""Territories and a tool that the tests with official SDKs share."""

from __future__ import annotations

from typing import Any

PLACES = ["CN", "DE", "US", "JP", "HK"]


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
