"""Deprecated alias for one release: import from `providers.contract`."""

from __future__ import annotations

import warnings

from providers.matching.capability_matching import (
    ANSWERS_ITSELF,
    THINKS_BY_RESPONSES,
    has_effects_there,
    parameters_of,
    without_parameters,
)
from providers.matching.capability_matching import CapabilityMatch as Fit
from providers.matching.capability_matching import match_capabilities as fit
from providers.matching.capability_matching import reasons_unseen as thinks_unseen
from providers.matching.capability_matching import with_supported_choice as with_sayable_choice
from providers.matching.requirements import FEATURE_PARAMS as PLACES
from providers.matching.requirements import (
    FEATURES,
    IDENTITY,
    IMPLIED,
    PARAMETERS,
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
