"""The configuration with all features: its shape, and its compiler."""

from __future__ import annotations

from functools import partial

from gateway.config.compile import compile_config as _compile
from gateway.config.feature_compiler import FeatureCompiler
from gateway.config.schema.file import file_section, schema_of
from gateway.features.claims.config import CLAIMS_COMPILER
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
    CLAIMS_COMPILER,
)
"""The compilers of all features, in the order in which they are asked."""
GatewayFile = file_section([key for feature in COMPILERS for key in feature.keys])
"""The section of the whole file."""
compile_config = partial(_compile, features=COMPILERS)
"""See `gateway.config.compile.compile_config`."""


def schema_json() -> str:
    """Return the JSON Schema (draft 2020-12) of a config file, for editors."""
    return schema_of(GatewayFile, "gateway.yaml")
