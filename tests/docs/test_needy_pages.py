"""The fenced blocks that need packages of the extra `sdks`, or of `tests/node`: each runs alone, in `make ci`."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress

import pytest

from tests.docs.conftest import Workspace
from tests.kit.doc_pages import PAGES, Block, needy_blocks_of, pattern_of
from tests.kit.node_clients import installed_node, installed_packages

pytestmark = pytest.mark.slow("imports the SDKs and frameworks of pages")

_BLOCKS = [pair for page in PAGES for pair in needy_blocks_of(page)]


def _is_installed(module: str) -> bool:
    # Several packages of a framework share the name above it.
    with suppress(ModuleNotFoundError):
        return importlib.util.find_spec(module) is not None
    return False


@pytest.mark.parametrize(("block", "shown"), _BLOCKS, ids=lambda value: str(value or ""))
def test_block_with_extra_packages_does_what_the_page_describes(
    block: Block, shown: Block | None, workspace: Workspace
) -> None:
    if block.language == "python":
        if not _is_installed(block.options["needs"]):
            pytest.skip(f"not run ({block.options['needs']} is not installed: make install-sdks)")
        script = workspace.folder / "example.py"
        script.write_text(workspace.with_own_ports(block.text), "utf-8")
        status, output = workspace.run([sys.executable, str(script)])
    else:
        assert block.language == "js", f"{block}: no test runs a block of {block.language!r}"
        node = installed_node()
        folder = installed_packages(node)
        assert (folder / "node_modules" / block.options["needs"]).is_dir(), f"{block}: tests/node has no such package"
        script = folder / f"page-{block.line}.mjs"
        script.write_text(workspace.with_own_ports(block.text), "utf-8")
        status, output = workspace.run([str(node), str(script)])
    assert status == 0, f"{block}: {output}"
    assert shown is not None, f"{block}: the expected output is missing"
    assert pattern_of(shown.text).search(output), f"{shown} is not the output:\n{output}"
