"""A configuration with every key of usage and money, and the problems that a compilation of it reports."""

from __future__ import annotations

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
BASE = Config.parse(
    """
version: 1
cell: {territory: DE, serves: [eu, us], name: eu-1}
assistants: {assistant: {routes: {eu: [chatgpt-eu], us: [chatgpt-us]}}}
regions:
  eu: {territories: ["@EEA", CH], boundary: ["@EEA", CH]}
  us: {territories: [US], boundary: [US], transit: [DE]}
deployments:
  chatgpt-eu: {provider: openai, model: gpt-6-luna, endpoint: eu, attests: [zdr], api_key: "${EU_KEY}"}
  chatgpt-us: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: "${US_KEY}"}
projects:
  shop: {budgets: [{amount: 500 EUR, per: month}]}
  operations: {}
clients:
  ios-app:
    keys: ["sha256:HASH"]
    project: shop
    limits: {rpm: 6000, tpm: 2000000, concurrent: 500}
    budgets: [{amount: 20 EUR, per: day}, {tokens: 5000000, per: month}]
    user_budget: {amount: 1 EUR, per: day}
    max_request: {amount: 0.50 EUR}
    show_cost: true
    may_assert: [user]
usage:
  currency: EUR
  rates: {USD: 0.92, CNY: 0.127, as_of: 2026-11-20}
  timezone: Europe/Berlin
  on_loss: {allow: 5 EUR}
  retention: {ledger: 400d}
  alerts: {at: [100, 80], webhook: {url: "https://hooks.example/T0/secret", territory: DE}}
  internal_project: operations
secrets: {pepper: "${PEPPER}", identity: ["${IDENTITY}", "${FORMER}"]}
keys: {max_stale: 2m}
stores:
  database: {url: "postgresql://gateway@db.internal/gateway", password: "${DB}", territory: DE}
  valkey: {url: "rediss://valkey.internal:6379", password: "${VALKEY}", territory: DE}
""".replace("HASH", "ab" * 32)
)
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
