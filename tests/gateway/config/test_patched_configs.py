"""The problems of a config with a patch. `patches/NAME.yaml` has patches of the base of this name, and below each its problems.

A patch is a JSON merge patch (RFC 7396) in YAML. The warnings of the base itself are left out. To write the notes of
changed or new patches:

    WRITE=1 .venv/bin/python -m pytest tests/gateway/config/test_patched_configs.py
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from gateway.config.problems import Problem, dotted
from tests.gateway.config import usage_configs
from tests.kit import barriers, configs, input_gateway, token_gateway
from tests.kit.config_cases import ENVIRON, problems_of, sections
from tests.kit.configs import Config

FOLDER = Path(__file__).with_name("patches")
OWN = "{provider: openai-compatible, model: m, endpoint: 'https://llm.example.com/v1', stores: any, processes: any, api_key: '${K}'}"
OPENAI = "provider: openai, api_key: '${CONSENT_KEY}', endpoint: us"
CREDENTIALS = {
    "USER": "gateway",
    "PASSWORD": "hunter2",
    "COLON": "a:hunter2",
    "K": "k-1",
    "S": "hunter2",
    "ID": "i" * 40,
}
DEMO = Config.parse(sections()).merge(
    """
    demo: true
    cell: null
    regions: {us: {transit: null}}
    deployments:
      qwen-cn: {endpoint: simulator, simulates: cn-beijing, api_key: null}
      chatgpt-eu: {endpoint: simulator, simulates: eu, api_key: null}
      chatgpt-us: {endpoint: simulator, simulates: us, api_key: null}
    """
)
BASES: Mapping[str, tuple[Config, Mapping[str, str]]] = {
    "barriers": (
        barriers.CONFIG.merge(
            f"deployments: {{cloud2: {{{OPENAI}, model: gpt-6-luna}}, judge: {{{OPENAI}, model: omni-moderation-latest}}}}"
        ),
        {"CONSENT_KEY": "k" * 40},
    ),
    "demo": (DEMO, {}),
    "inputs": (input_gateway.CONFIG, CREDENTIALS),
    "servers": (
        configs.BASE.merge(f"deployments: {{x: {OWN}}}", "assistants: {assistant: {routes: {default: [x]}}}"),
        {**configs.KEYS, **CREDENTIALS},
    ),
    "sign_ins": (
        Config.parse("""
            version: 1
            cell: {territory: DE}
            assistants: {chat: {routes: {eu: [d]}}}
            regions: {eu: {territories: [DE], boundary: ["@EEA"]}}
            deployments: {d: {sign_in: one}}
            """),
        CREDENTIALS,
    ),
    "sound": (Config.parse(sections()), ENVIRON),
    "token_issuers": (token_gateway.CONFIG, {}),
    "usage": (usage_configs.BASE, usage_configs.ENVIRON),
}
_NOTE = re.compile("# (?:error |warning |no problem)")


FILES = {name: FOLDER / f"{name}.yaml" for name in BASES}
DOCUMENTS = [(name, text) for name, file in FILES.items() for text in file.read_text("utf-8").split("---\n")]


@pytest.mark.parametrize(("name", "document"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_patched_config_has_the_problems_below_the_patch(name: str, document: str) -> None:
    found = noted(document, name)
    if os.environ.get("WRITE"):
        FILES[name].write_text(FILES[name].read_text("utf-8").replace(document, found, 1), "utf-8")
    else:
        assert found == document
    assert not [line for line in found.splitlines() if _NOTE.match(line) and "hunter2" in line], "a secret is shown"


def noted(document: str, name: str) -> str:
    """Return the document with the notes of the problems that it has now, in place of those that it had."""
    base, environ = BASES[name]
    own = "".join(line for line in document.splitlines(keepends=True) if not _NOTE.match(line))
    found = problems_of(base.merge(own).text, environ)
    notes = [note for note in map(_text, found) if note not in known_of(name)]
    return own + "".join(f"# {note}\n" for note in notes or ["no problem"])


@cache
def known_of(name: str) -> set[str]:
    """Return the warnings of a base."""
    base, environ = BASES[name]
    return {*map(_text, problems_of(base.text, environ))}


def _text(problem: Problem) -> str:
    hint = f"; {problem.hint}" if problem.hint else ""
    return f"{problem.severity} {dotted(problem.path)}: {problem.message}{hint}"
