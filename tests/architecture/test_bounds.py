"""Each bound has a test at its edge. Whether that test detects another bound, `tests/mutation/bounds.py` checks."""

from __future__ import annotations

import ast

from tests.architecture.source_tree import ROOT
from tests.mutation.bounds import compared_bounds, edge_tests


def test_each_bound_has_a_test_at_its_edge() -> None:
    """Name the test in tests/mutation/bounds.toml. A row of a table in `test_edges.py` is enough for most."""
    assert compared_bounds() == edge_tests().keys()


def test_each_test_at_an_edge_exists() -> None:
    named = {test for tests in edge_tests().values() for test in tests}
    sources = {file: (ROOT / file).read_text("utf-8") for file in {test.partition("::")[0] for test in named}}
    functions = {
        (file, node.name)
        for file, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for test in named:
        file, _, name = test.partition("::")
        function, _, row = name.rpartition("::")[2].partition("[")
        assert (file, function) in functions, test
        assert not file.endswith("/test_edges.py") or f'"{row.removesuffix("]")}"' in sources[file], test
