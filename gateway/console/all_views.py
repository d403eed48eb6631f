"""All views below the map, in the order of the navigation."""

from __future__ import annotations

from gateway.console import requests_view

VIEWS = (requests_view.VIEW,)
