"""A configuration with every key of usage and money, and the problems that a compilation of it reports."""

from gateway.config.compile import Compiled
from gateway.config.problems import dotted
from tests.kit import config_cases
from tests.kit.configs import Config

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
    return config_cases.compiled(config.text, ENVIRON)


def messages(config: Config, severity: str = "error") -> list[str]:
    """Return the errors or warnings of a configuration, each with its key and its hint."""
    found = [problem for problem in config_cases.problems_of(config.text, ENVIRON) if problem.severity == severity]
    return [
        f"{dotted(problem.path)}: {problem.message}{'; ' if problem.hint else ''}{problem.hint}" for problem in found
    ]
