"""Load a catalogue file of an operator."""

import os
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

from gateway.config.compile import Compiled
from tests.kit.config_cases import ENVIRON, compiled_file

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC).timestamp()


CONFIG = """
version: 1
catalogue: {models: %s}
assistants: {assistant: {routes: {us: [luna, old, new, house]}}}
regions: {us: {territories: [US], boundary: [US]}}
deployments:
  luna: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: "${OPENAI_US_API_KEY}"}
  old: {provider: openai, model: gpt-4o, endpoint: us, api_key: "${OPENAI_US_API_KEY}"}
  new: {provider: openai, model: o9-next, endpoint: us, api_key: "${OPENAI_US_API_KEY}"}
  house:
    {provider: openai-compatible, model: m, endpoint: "https://llm.example.com/v1", stores: US, processes: US, api_key: k}
"""


def load(home: Path, catalogue: str, *more: str, now: float = NOW) -> Compiled:
    names = ["models.yaml", *(f"more{number}.yaml" for number in range(len(more)))]
    for name, text in zip(names, (catalogue, *more), strict=True):
        (home / name).write_text(dedent(text), "utf-8")
    (home / "gateway.yaml").write_text(CONFIG % f"[{', '.join(names)}]", "utf-8")
    return compiled_file(home / "gateway.yaml", {**os.environ, **ENVIRON}, clock=lambda: now)
