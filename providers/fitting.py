"""Deprecated alias for one release: import from `providers.contract`."""

from __future__ import annotations

import warnings

from providers.matching.capability_matching import (
    ANSWERS_ITSELF,
    THINKS_BY_RESPONSES,
    has_effects_there,
    parameters_of,
    thinks_unseen,
    with_sayable_choice,
    without_parameters,
)
from providers.matching.capability_matching import CapabilityMatch as Fit
from providers.matching.capability_matching import match_capabilities as fit
from providers.matching.requirements import (
    FEATURES,
    IDENTITY,
    IMPLIED,
    PARAMETERS,
    PLACES,
    has_effects,
    moves_data,
    why_it_moves,
)
from providers.matching.requirements import Requirements as Needs
from providers.matching.requirements import requirements_of as needs_of

__all__ = [
    "ANSWERS_ITSELF",
    "FEATURES",
    "IDENTITY",
    "IMPLIED",
    "PARAMETERS",
    "PLACES",
    "THINKS_BY_RESPONSES",
    "Fit",
    "Needs",
    "fit",
    "has_effects",
    "has_effects_there",
    "moves_data",
    "needs_of",
    "parameters_of",
    "thinks_unseen",
    "why_it_moves",
    "with_sayable_choice",
    "without_parameters",
]

warnings.warn(
    "providers.fitting is deprecated and goes in the next release: import from providers.contract",
    DeprecationWarning,
    stacklevel=2,
)
