"""Territories, a tool and a structured answer that the tests with official SDKs share."""

from __future__ import annotations

import base64
from typing import Any

from pydantic import BaseModel

PLACES = ["CN", "DE", "US", "JP", "HK"]
WITH_IMAGES = ["DE", "US", "JP", "HK"]
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 32).decode()


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


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
