"""Settings of every test: no deadlines, which a busy machine would miss, and the number of examples of a property.

`make test` draws few examples of each property, which are others each time. `make ci` draws half as many more, with
`--hypothesis-profile=wide`, and `make prove` fifty times as many, with `--hypothesis-profile=prove`. Hypothesis's own
profile for CI keeps what it sets, and so does that of `tests.mutation`.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from functools import cache

import httpx._transports.default as httpx_default
import pytest
from hypothesis import HealthCheck, settings

# Each client of httpx reads the certificates of all authorities, 40 ms; the tests make thousands, for plain HTTP.
httpx_default.create_ssl_context = cache(httpx_default.create_ssl_context)

_PATIENT = settings(settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", _PATIENT, max_examples=40)
settings.register_profile("wide", _PATIENT, max_examples=60)
settings.register_profile("prove", _PATIENT, max_examples=2000)
if settings.get_current_profile_name() in ("default", "ci"):
    settings.load_profile("fast")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays to the end: no search for garbage has to go through it, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
