"""A configuration with every key of usage and money, and the problems that a compilation of it reports."""

from gateway.config.compile import Compiled
from gateway.config.loading import parse_document
from gateway.config.problems import ConfigRejected, Problem, dotted
from gateway.features.configuration import compile_config
from providers.registry import load_registry
from tests.kit.configs import Config

REGISTRY = load_registry()
ENVIRON = {
    "EU_KEY": "sk-eu",
    "US_KEY": "sk-us",
    "PEPPER": "pepper" * 6,
    "IDENTITY": "new-id" * 6,
    "FORMER": "old-id" * 6,
    "DB": "db-password",
    "VALKEY": "valkey-password",
}
BASE = Config.beside(__file__)
"""Every key of usage and money."""


def compiled(config: Config) -> Compiled:
    """Compile a configuration."""
    document = parse_document(config.text.encode(), "gateway.yaml", ENVIRON)
    return compile_config(document, registry=REGISTRY)


def problems_of(config: Config) -> tuple[Problem, ...]:
    """Return the errors of a configuration, or its warnings if it has no error."""
    try:
        return compiled(config).warnings
    except ConfigRejected as rejection:
        return rejection.problems


def messages(config: Config, severity: str = "error") -> list[str]:
    """Return the errors or warnings of a configuration, each with its key and its hint."""
    found = [problem for problem in problems_of(config) if problem.severity == severity]
    return [
        f"{dotted(problem.path)}: {problem.message}{'; ' if problem.hint else ''}{problem.hint}" for problem in found
    ]
