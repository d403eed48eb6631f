"""Two installations: `make run` in a fresh checkout, and the wheel without a checkout."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest

from tests.cli.conftest import ROOT
from tests.kit.start_alone import assert_starts_alone

pytestmark = pytest.mark.slow("builds a wheel and makes environments")
_INSTALL_LIMIT_S = 900
_LIMIT_S = 60


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the files of the working tree that git tracks or would add, like `git clone`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    copy = tmp_path / "checkout"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def newcomer(**more: str) -> dict[str, str]:
    """Return an environment without development variables, with this machine's package index."""
    left_out = re.compile(r"COV_|COVERAGE_|PYTHON|VIRTUAL_ENV|MAKE|MFLAGS|GATEWAY_|.*_API_KEY$")
    return {name: value for name, value in os.environ.items() if not left_out.match(name)} | more


@contextmanager
def demo(command: list[str], folder: Path, environ: Mapping[str, str], limit_s: float) -> Iterator[str]:
    """Start the command, return the URL of its demo, and stop it with Ctrl-C."""
    process = subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    guard = threading.Timer(limit_s, lambda: os.killpg(process.pid, signal.SIGKILL))
    guard.start()
    try:
        assert process.stdout is not None
        shown = ""
        for line in process.stdout:
            shown += line
            if "Ctrl-C" in line:
                break
        found = re.search(r"listens on (http\S+)\.", shown)
        assert found, shown
        assert "qwen-cn" in shown
        yield found[1]
        os.killpg(process.pid, signal.SIGINT)
        shown += process.stdout.read()
        assert process.wait(_LIMIT_S) in (0, 130, -signal.SIGINT), shown
        assert "Traceback" not in shown
    finally:
        guard.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ask_from(url: str, place: str) -> httpx.Response:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Hello!"}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers={"cf-ipcountry": place}, trust_env=False)


def test_make_run_works_in_a_fresh_checkout(checkout: Path, tmp_path: Path) -> None:
    environ = newcomer(PYTHON=sys.executable, HOME=str(tmp_path), PIP_NO_CACHE_DIR="1")
    with demo(["make", "run", "PORT=0"], checkout, environ, _INSTALL_LIMIT_S) as url:
        assert ask_from(url, "DE").headers["x-gateway-deployment"] == "chatgpt-eu"
    done = subprocess.run(["make"], cwd=checkout, env=environ, capture_output=True, text=True, check=True)
    assert {"make run", "make test", "make ci"} <= {line.strip()[:9].strip() for line in done.stdout.splitlines()}


def test_the_wheel_needs_no_checkout(checkout: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist")]
    subprocess.run(build, cwd=checkout, env=newcomer(), check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"evaluation", "gateway", "providers"}
    assert {"gateway/examples/gateway.yaml", "gateway/examples/demo.yaml", "providers/py.typed"} <= set(names)
    assert {"evaluation/refusal_wording.toml", "evaluation/templates/report.md.j2"} <= set(names)
    assert {"gateway/api/openapi.json", "gateway/config/data/sensitive_keys.json"} <= set(names)
    venv = _venv_with(wheel, tmp_path)
    shutil.rmtree(checkout)
    outside, gateway = tmp_path / "outside", str(venv / "bin" / "gateway")
    outside.mkdir()

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=outside, env=newcomer(), capture_output=True, text=True, check=True).stdout

    assert str(venv) in run(str(venv / "bin" / "python"), "-c", "import gateway; print(gateway.__file__)")
    assert "wrote here/gateway.yaml" in run(gateway, "init", "here")
    assert "chatgpt-eu" in run(gateway, "check", "--no-secrets", "here/gateway.yaml")
    assert run(gateway, "schema") == (outside / "here" / "gateway.schema.json").read_text("utf-8")
    with demo([gateway, "demo", "--port", "0"], outside, newcomer(), _LIMIT_S) as url:
        assert ask_from(url, "JP").headers["x-gateway-deployment"] == "gemini"
    if sys.platform == "linux":
        (alone := tmp_path / "alone").mkdir()
        assert_starts_alone(venv / "bin/python", alone, outside / "here/gateway.yaml")


def _venv_with(wheel: Path, folder: Path) -> Path:
    """Create a virtual environment with the wheel and the dependencies of the test environment."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        venv / "bin" / "python",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*install, wheel], env=newcomer(), check=True, capture_output=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv
