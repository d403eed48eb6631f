"""Every fenced block of every page does what the page describes."""

from __future__ import annotations

import doctest
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from gateway.config.compile import Compiled
from gateway.config.loading import parse_document
from gateway.config.yaml_document import parse_yaml
from gateway.features.configuration import compile_config
from providers.registry import load_registry
from tests.docs.conftest import Workspace
from tests.kit.doc_pages import PAGES, ROOT, Block, blocks_of, earlier_files_of, name_of, needy_blocks_of, pattern_of

_NEXT_BLOCK = "--- next block ---"
_KNOWN = set("sh python pycon text yaml toml json swift".split())
_WITH_BLOCKS = [page for page in PAGES if any(blocks_of(page))]
# Their commands start processes and use curl: seconds each, and half a minute for some.
_WITH_COMMANDS = {page for page in _WITH_BLOCKS if any(block.language == "sh" for block in blocks_of(page))}
_PICTURES = sorted((ROOT / "docs" / "images").glob("*.svg"))
_SVG = "{http://www.w3.org/2000/svg}"
_PARTS = [block for page in PAGES for block in blocks_of(page) if block.language == "yaml" and block.title is None]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow("runs the commands of a page")) if page in _WITH_COMMANDS else page
        for page in _WITH_BLOCKS
    ],
    ids=name_of,
)
def test_page_blocks_run_with_the_shown_output(page: Path, workspace: Workspace) -> None:
    elsewhere = {block.line for pair in needy_blocks_of(page) for block in pair if block is not None}
    for block in earlier_files_of(page):
        _write_titled_block(block, workspace)
    blocks = [block for block in blocks_of(page) if block.line not in elsewhere]
    for block in blocks:
        assert block.language in _KNOWN, f"{block}: no test runs a block of {block.language!r}"
        _write_file(block, blocks, workspace)
    outputs = _run_python([block for block in blocks if block.language == "python" and not block.title], workspace)
    output: str | None = None
    for block in blocks:
        if block.title is not None:
            continue
        if block.options.get("serves"):
            workspace.serve(["sh", "-euc", block.text])
        elif block.language == "sh":
            output = _run_shell(block, workspace)
        elif block.language == "python":
            output = outputs[block.line]
        elif block.language == "pycon":
            session = doctest.DocTestParser().get_doctest(block.text, {}, name_of(page), str(page), block.line)
            assert doctest.DocTestRunner().run(session).failed == 0, f"{block} shows another value"
        elif block.language == "text":
            assert output is not None, f"{block}: there is no command before this output"
            assert pattern_of(block.text).search(output), f"{block} is not the output:\n{output}"
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)


def _write_file(block: Block, blocks: list[Block], workspace: Workspace) -> None:
    if block.title is None:
        return
    path = _write_titled_block(block, workspace)
    if block.language == "toml":
        tomllib.loads(block.text)
    if str(block.title).startswith("~/"):
        # Another program reads it.
        assert yaml.safe_load(block.text)
        return
    names = (path.stem, path.parent.parent.name)
    used = any(
        re.search(rf"\b({'|'.join(filter(None, names))})\b", other.text) for other in blocks if other is not block
    )
    assert used or block.language == "toml", f"{block}: nothing on the page uses {block.title}"


def _write_titled_block(block: Block, workspace: Workspace) -> Path:
    path = workspace.folder / str(block.title)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, "utf-8")
    return path


def _run_shell(block: Block, workspace: Workspace) -> str:
    status, output = workspace.run(["sh", "-euc", workspace.with_own_ports(block.text)])
    assert status == int(block.options.get("exit", "0")), f"{block} ended with {status}:\n{output}"
    return output


def _run_python(blocks: list[Block], workspace: Workspace) -> dict[int, str]:
    """Run the blocks one after another and return the output of each by its line."""
    if not blocks:
        return {}
    script = workspace.folder / "snippets.py"
    texts = [workspace.with_own_ports(block.text) for block in blocks]
    script.write_text(f"print('\\n{_NEXT_BLOCK}', flush=True)\n".join(texts), "utf-8")
    status, output = workspace.run([sys.executable, "-W", "error", script.name])
    assert status == 0, f"{name_of(blocks[0].page)}: {output}"
    parts = output.split(f"{_NEXT_BLOCK}\n")
    return {block.line: part for block, part in zip(blocks, parts, strict=True)}


@pytest.mark.parametrize("block", _PARTS, ids=str)
def test_partial_config_of_a_page_compiles(block: Block) -> None:
    compiled = _compiled(block.text)
    # The example config has vendors without a price, and an example with a budget cannot show them all.
    expected = ("no route uses this deployment", "has no price")
    warnings = [
        str(warning) for warning in compiled.warnings if not any(words in warning.message for words in expected)
    ]
    assert not warnings


def _compiled(text: str) -> Compiled:
    config = _merged(_base(), parse_yaml(text.encode(), "part.yaml").values)
    document = parse_document(json.dumps(config).encode(), "gateway.yaml", {}, secrets=False)
    return compile_config(document, registry=load_registry())


@cache
def _base() -> Mapping[str, object]:
    return parse_yaml((ROOT / "config" / "gateway.yaml").read_bytes(), "gateway.yaml").values


def _merged(base: Mapping[str, object], part: Mapping[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in part.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


@pytest.mark.parametrize("picture", _PICTURES, ids=name_of)
def test_picture_is_shown_and_names_only_existing_paths(picture: Path) -> None:
    root = ElementTree.parse(picture).getroot()  # noqa: S314  (a file of ours)
    texts = [element.text or "" for element in root.iter(f"{_SVG}text")]
    assert root.tag == f"{_SVG}svg"
    assert texts
    paths = re.findall(r"(?:gateway|providers)/[\w./]*", " ".join(texts))
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert any(f"images/{picture.name})" in page.read_text("utf-8") for page in PAGES), "no page shows this picture"
