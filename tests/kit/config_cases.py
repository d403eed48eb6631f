"""Configurations as text for the tests of the compiler: a valid one in sections, and marks for the positions of problems.

A case replaces sections as text, because the compiler reports the line and column of each problem. `▸` in a case marks
where a problem must point; it is removed before the text is compiled. For other tests, `tests.kit.configs` changes a
configuration as data.
"""

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from gateway.config.compile import Compiled
from gateway.config.loading import load_document, parse_document
from gateway.config.problems import ConfigRejected, Problem, dotted
from gateway.features.configuration import compile_config
from providers.registry import Registry, load_registry

MARK = "▸"
ENVIRON = {
    "CN_KEY": "sk-cn",
    "US_KEY": "sk-us",
    "EU_KEY": "sk-eu",
    "G_KEY": "sk-g",
    "EDGE": "edge-word",
    "ODD": "not a word",
}

SOUND = {
    "version": "version: 1",
    "cell": "cell: {territory: DE, serves: [eu, us], homes: {cn: 'https://cn.example'}}",
    "assistants": """\
        assistants:
          assistant:
            aliases: [gpt-4o]
            routes:
              cn: [qwen-cn]
              eu: [chatgpt-eu]
              us: [chatgpt-us]
        """,
    "regions": """\
        regions:
          cn: {territories: [CN], boundary: [CN]}
          eu: {territories: ["@EEA", CH], boundary: ["@EEA", CH]}
          us: {territories: [US], boundary: [US], transit: [DE]}
        """,
    "blocked": "blocked: [CU, IR, KP, SY]",
    "deployments": """\
        deployments:
          qwen-cn: {provider: dashscope, model: qwen-plus, endpoint: cn-beijing, api_key: "${CN_KEY}"}
          chatgpt-eu: {provider: openai, model: gpt-6-luna, endpoint: eu, attests: [zdr], api_key: "${EU_KEY}"}
          chatgpt-us: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: "${US_KEY}"}
        """,
}


def sections(**changes: str) -> str:
    """Return the sound config with some sections replaced or added, in the order of `SOUND`. "" removes a section."""
    return "\n".join(dedent(text).rstrip() for text in (SOUND | changes).values() if text) + "\n"


def edited(text: str, *edits: tuple[str, str]) -> str:
    """Edit a text: each edit is the old words, which must occur, and the new ones.

    Only for tests of a file's text, such as the positions of problems. Otherwise change `tests.kit.configs.Config`.
    """
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return text


def more(section: str, line: str, indent: int = 2) -> str:
    """Return a section of the sound config with one more line."""
    return f"{dedent(SOUND[section]).rstrip()}\n{' ' * indent}{line}"


def with_deployment(keys: str) -> str:
    """Return the sound config with one more deployment, `x`, that has these keys."""
    return sections(deployments=more("deployments", f"x: {{{keys}}}"))


def compiled(
    text: str,
    environ: Mapping[str, str] = ENVIRON,
    *,
    secrets: bool = True,
    registry: Registry | None = None,
    simulators: Mapping[tuple[str, str], str] | None = None,
    demo: bool = False,
) -> Compiled:
    """Compile the text. Raises ConfigRejected."""
    document = parse_document(text.encode(), "gateway.yaml", environ, secrets=secrets)
    return compile_config(document, registry=registry or load_registry(), simulators=simulators, demo=demo)


def compiled_file(path: Path, environ: Mapping[str, str] = ENVIRON, **reading: Any) -> Compiled:
    """Compile a file. Raises ConfigRejected."""
    return compile_config(load_document(path, environ, **reading), registry=load_registry())


def rejected(text: str, environ: Mapping[str, str] = ENVIRON, *, demo: bool = False) -> tuple[Problem, ...]:
    """Return every problem of a text that must not compile."""
    with pytest.raises(ConfigRejected) as caught:
        compiled(text, environ, demo=demo)
    assert any(problem.severity == "error" for problem in caught.value.problems)
    return caught.value.problems


def problems_of(text: str, environ: Mapping[str, str] = ENVIRON) -> tuple[Problem, ...]:
    """Return every problem of a text, whether it compiles or not."""
    try:
        return compiled(text, environ).warnings
    except ConfigRejected as rejection:
        return rejection.problems


def messages_about(section: str, text: str, environ: Mapping[str, str] = ENVIRON) -> list[str]:
    """Return the path and the message of every problem of a section."""
    found = [problem for problem in problems_of(text, environ) if problem.path[:1] == (section,)]
    return [f"{dotted(problem.path)}: {problem.message}" for problem in found]


def position_of(text: str, words: str) -> tuple[int, int]:
    """Return the line and column at which the words first occur."""
    before = text[: text.index(words)]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def marked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the text without its marks, and the line and column of each mark."""
    places = []
    while MARK in text:
        places.append(position_of(text, MARK))
        text = text.replace(MARK, "", 1)
    return text, places
