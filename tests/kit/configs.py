"""Configurations for tests: a builder, the config that most tests use, and its compiled form.

Start from a configuration, change it as data, and compile it or write it to a file:

    table_of(BASE.merge("deployments: {chatgpt-eu: {enabled: false}}"))
    BASE.without("clients").replace(location={"unknown": "eu"}).write(tmp_path)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from gateway.config.loading import parse_document
from gateway.config.yaml_document import parse_yaml
from gateway.features.configuration import compile_config
from gateway.model.config_version import ConfigVersion
from providers.registry import load_registry


@dataclass(frozen=True)
class Config:
    """A configuration as data. Every method returns a new one and leaves this one unchanged.

    Attributes:
        data: the sections by name, as YAML or JSON would hold them.
    """

    data: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> Config:
        """Read YAML with the gateway's own parser. Variables such as `${KEY}` are not replaced."""
        return cls(_mapping(text))

    @classmethod
    def beside(cls, module: str) -> Config:
        """Read the file of a configuration next to a module: `minors.gateway.yaml` is that of `test_minors.py`.

        Args:
            module: The `__file__` of the module.
        """
        path = Path(module)
        return cls.parse(path.with_name(f"{path.stem.removeprefix('test_')}.gateway.yaml").read_text("utf-8"))

    def merge(self, *patches: str | Mapping[str, Any]) -> Config:
        """Apply JSON merge patches (RFC 7396), each as data or as YAML.

        Mappings are merged key by key, everything else is replaced, and null removes a key.
        """
        data: Any = self.data
        for patch in patches:
            data = _merged(data, _mapping(patch))
        return Config(data)

    def replace(self, **sections: Any) -> Config:
        """Replace or add whole sections."""
        return Config({**self.data, **sections})

    def without(self, *sections: str) -> Config:
        """Leave out whole sections, which must exist."""
        missing = [name for name in sections if name not in self.data]
        assert not missing, f"no such section: {missing}"
        return Config({name: value for name, value in self.data.items() if name not in sections})

    def write(self, folder: Path, name: str = "gateway.yaml") -> Path:
        """Write the configuration to a file of a folder, and return its path."""
        path = folder / name
        path.write_text(self.text, "utf-8")
        return path

    @property
    def text(self) -> str:
        """The configuration as YAML, a line for each section."""
        lines = (f"{name}: {json.dumps(value, ensure_ascii=False, default=str)}\n" for name, value in self.data.items())
        return "".join(lines)


def _mapping(source: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(source, str):
        tree = parse_yaml(dedent(source).encode(), "test.yaml")
        assert not tree.problems, tree.problems
        source = tree.values
    assert isinstance(source, Mapping)
    return source


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    result = dict(value) if isinstance(value, Mapping) else {}
    for key, change in patch.items():
        if change is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), change)
    return result


KEYS = {
    "DASHSCOPE_API_KEY": "sk-qwen-secret",
    "DASHSCOPE_INTL_API_KEY": "sk-intl-secret",
    "OPENAI_US_API_KEY": "sk-us-secret",
    "OPENAI_EU_API_KEY": "sk-eu-secret",
    "GEMINI_API_KEY": "gm-secret",
    "EDGE_SECRET": "edge-secret",
}

BASE = Config.parse("""
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
  qwen-cn: {provider: dashscope, model: qwen-plus, endpoint: cn-beijing, api_key: "${DASHSCOPE_API_KEY}"}
  qwen-intl: {provider: dashscope, model: qwen-plus, endpoint: intl, api_key: "${DASHSCOPE_INTL_API_KEY}", available: [HK, MO]}
  chatgpt-eu: {provider: openai, model: gpt-6-luna, endpoint: eu, api_key: "${OPENAI_EU_API_KEY}", attests: [zdr]}
  chatgpt-us: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: "${OPENAI_US_API_KEY}"}
  gemini: {provider: gemini, model: gemini-3.8-flash, api_key: "${GEMINI_API_KEY}"}
clients:
  app: {assistants: [assistant]}
  backend: {may_assert: [territory]}
  shop-cn: {region: cn}
location:
  signals: [api_key, assertion, edge_header]
  edges: [{from: [127.0.0.0/8], country: CF-IPCountry}]
""").merge(
    {
        "clients": {
            "app": {"keys": [f"sha256:{'a' * 64}"]},
            "backend": {"keys": [f"sha256:{'b' * 64}"]},
            "shop-cn": {"keys": [f"sha256:{'c' * 64}"]},
        }
    }
)
"""A config with four regions and the real sites of vendors, which most tests change."""

SPLIT_COUNTRIES = """
blocked: [UA-43, CU, IR, KP, SY]
regions: {ca: {territories: [US-CA], boundary: [US]}}
assistants: {assistant: {routes: {ca: [chatgpt-us]}}}
"""
"""A patch for `BASE`: California is a region of its own, and a part of Ukraine is blocked."""


def key_hash(key: str) -> str:
    """Return the hash of a client's key, as `clients.*.keys` holds it."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def table_of(config: str | Config, environ: dict[str, str] | None = None) -> ConfigVersion:
    """Compile a configuration, or its YAML. Raises ConfigRejected."""
    environ = KEYS if environ is None else environ
    text = config.text if isinstance(config, Config) else config
    document = parse_document(dedent(text).encode(), "test.yaml", environ)
    return compile_config(document, registry=load_registry()).config
