"""Tables for tests, compiled from a few lines of YAML by the real compiler."""

from __future__ import annotations

from textwrap import dedent

from gateway.config.compile import compile_config
from gateway.config.loading import parse_document
from gateway.model.config_version import ConfigVersion
from providers.registry import load_registry

__all__ = ["KEYS", "WORLD", "table_of"]

KEYS = {
    "DASHSCOPE_API_KEY": "sk-qwen-secret",
    "DASHSCOPE_INTL_API_KEY": "sk-intl-secret",
    "OPENAI_US_API_KEY": "sk-us-secret",
    "OPENAI_EU_API_KEY": "sk-eu-secret",
    "GEMINI_API_KEY": "gm-secret",
    "EDGE_SECRET": "edge-secret",
}

WORLD = """
version: 1
assistants:
  assistant:
    aliases: [gpt-4o]
    routes:
      cn: [qwen-cn]
      eu: [chatgpt-eu]
      us: [chatgpt-us]
      default: [gemini, qwen-intl]
regions:
  cn: {territories: [CN], boundary: [CN]}
  eu: {territories: ["@EEA", CH], boundary: ["@EEA", CH]}
  us: {territories: [US], boundary: [US]}
  default: {territories: ["*"], boundary: ["*"]}
blocked: [CU, IR, KP, SY]
deployments:
  qwen-cn: {provider: dashscope, model: qwen3-max, endpoint: cn-beijing, api_key: "${DASHSCOPE_API_KEY}"}
  qwen-intl: {provider: dashscope, model: qwen-plus, endpoint: intl, api_key: "${DASHSCOPE_INTL_API_KEY}", available: [HK, MO]}
  chatgpt-eu: {provider: openai, model: gpt-6-luna, endpoint: eu, api_key: "${OPENAI_EU_API_KEY}", attests: [zdr]}
  chatgpt-us: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: "${OPENAI_US_API_KEY}"}
  gemini: {provider: gemini, model: gemini-3.8-flash, api_key: "${GEMINI_API_KEY}"}
clients:
  app: {keys: ["sha256:APP"], assistants: [assistant]}
  backend: {keys: ["sha256:BACKEND"], may_assert: [territory]}
  shop-cn: {keys: ["sha256:SHOP"], region: cn}
location:
  signals: [api_key, assertion, edge_header]
  edges: [{from: [127.0.0.0/8], country: CF-IPCountry}]
"""
for _name, _digit in (("APP", "a"), ("BACKEND", "b"), ("SHOP", "c")):
    WORLD = WORLD.replace(f"sha256:{_name}", f"sha256:{_digit * 64}")


def table_of(text: str, environ: dict[str, str] | None = None) -> ConfigVersion:
    """The table that this YAML compiles to; raises ConfigRejected."""
    environ = KEYS if environ is None else environ
    document = parse_document(dedent(text).encode(), "test.yaml", environ)
    return compile_config(document, registry=load_registry()).table
