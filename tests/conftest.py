"""What holds for every test: how long one takes on a busy machine decides nothing."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The rest is as it was, so that `tests.mutation` and Hypothesis's own profile for CI keep what they set.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
if settings.get_current_profile_name() == "default":
    settings.load_profile("patient")
