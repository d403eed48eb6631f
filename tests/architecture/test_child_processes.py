"""Every child process is started with a fixed module of ours, without the current directory on its import path."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.child_process import child_command, child_environment
from tests.architecture.source_tree import Module, modules
from tests.kit.case_files import cases

STARTS = {
    "Popen", "check_call", "check_output", "create_subprocess_exec", "create_subprocess_shell", "execl", "execle",
    "execlp", "execv", "execve", "execvp", "fork", "forkpty", "getoutput", "getstatusoutput", "popen", "posix_spawn",
    "posix_spawnp", "spawnl", "spawnle", "spawnv", "spawnve", "subprocess_exec", "subprocess_shell",
}  # fmt: skip
OF_A_MODULE = {("subprocess", "run"), ("subprocess", "call"), ("os", "system")}
ALLOWED = {"Popen", "create_subprocess_exec"}
FORBIDDEN_MODULES = {"multiprocessing", "pty"}
HOSTILE = "from pathlib import Path\nPath(__file__).with_name('was-imported').touch()\nraise SystemExit(9)\n"


def starts_of(tree: ast.AST) -> list[ast.Call]:
    """Return the calls that start a process. The names of OF_A_MODULE count with their module only."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if node.func.attr in STARTS or (owner, node.func.attr) in OF_A_MODULE:
                found.append(node)
    return found


def fault_of(call: ast.Call, source: str) -> str:
    """Return why this call does not start a child as it must, or an empty text."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in ALLOWED:
        return "starts a process in another way"
    env = next((word.value for word in call.keywords if word.arg == "env"), None)
    if env is None or ast.unparse(env) != "child_environment()":
        return "lacks env=child_environment()"
    first = call.args[0].value if call.args and isinstance(call.args[0], ast.Starred) else call.args[0]
    if isinstance(first, ast.Name):
        return "" if f"{first.id} = child_command(" in source else f"{first.id} is not a child_command(...)"
    is_ours = isinstance(first, ast.Call) and ast.unparse(first.func) == "child_command"
    return "" if is_ours else "its command is not a child_command(...)"


@pytest.mark.parametrize("module", modules().values(), ids=modules())
def test_child_process_has_the_clean_environment(module: Module) -> None:
    source = module.path.read_text("utf-8")
    faults = {call.lineno: fault for call in starts_of(module.tree) if (fault := fault_of(call, source))}
    assert faults == {}
    assert not {imported.target.partition(".")[0] for imported in module.imports} & FORBIDDEN_MODULES
    names = {
        (node.module, name.name)
        for node in module.nodes
        if isinstance(node, ast.ImportFrom) and node.module in ("subprocess", "os")
        for name in node.names
    }
    assert not {name for _, name in names} & {*STARTS, *(name for _, name in OF_A_MODULE)}, (
        "import the module, so that the call is found"
    )


def test_every_known_child_process_is_found() -> None:
    found = {name for name, module in modules().items() if starts_of(module.tree)}
    assert {"gateway.changes.compile_process", "evaluation.simulation", "gateway.server.workers"} <= found


@cases("code", "fault")
def test_rule_finds_each_fault(code: str, fault: str) -> None:
    (call,) = starts_of(ast.parse(code))
    assert fault_of(call, code) == fault


@pytest.mark.parametrize("name", ["gateway.changes.compile_job", "evaluation.simulation", "gateway.server.worker"])
def test_child_imports_nothing_from_the_current_directory(name: str, tmp_path: Path) -> None:
    for library in ("json", "pickle", "asyncio", "gateway", "socket"):
        (tmp_path / f"{library}.py").write_text(HOSTILE, "utf-8")
    done = subprocess.run(
        child_command(name),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=tmp_path,
        env=child_environment(),
        check=False,
        timeout=60,
    )
    assert not (tmp_path / "was-imported").exists()
    assert done.returncode != 9
    assert os.pathsep.join(path for path in sys.path if path) in child_environment()["PYTHONPATH"]
