"""The compilers of all features, in the order in which they are asked."""

from __future__ import annotations

from gateway.config.feature_compiler import FeatureCompiler
from gateway.features.crisis.config import CRISIS_COMPILER
from gateway.features.duties.config import DUTIES_COMPILER
from gateway.features.marks.config import MARKS_COMPILER
from gateway.features.minors.config import MINORS_COMPILER
from gateway.features.redaction.config import REDACTION_COMPILER
from gateway.features.shadow.config import SHADOW_COMPILER

COMPILERS: tuple[FeatureCompiler, ...] = (
    CRISIS_COMPILER,
    MINORS_COMPILER,
    REDACTION_COMPILER,
    SHADOW_COMPILER,
    DUTIES_COMPILER,
    MARKS_COMPILER,
)
