"""A start without a network: no name is looked up, and no file is written outside the state directory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.doc_pages import ROOT

pytestmark = pytest.mark.slow("starts gateways in a namespace")

APART = ["unshare", "--user", "--map-root-user", "--net"]
# Each process of the gateway notes what it looks up, connects to and writes. The new namespace has no address but that
# of this machine, whose interface is switched on first (SIOCSIFFLAGS of `lo`: IFF_UP).
NOTES = """
import json, os, sys
def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect"):
        what = str(arguments[0] if event != "socket.connect" else arguments[1])
    elif event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        what = os.path.abspath(os.fsdecode(arguments[0]))
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "sqlite3.connect"):
        if isinstance(arguments[0], int):  # a file that is open
            return
        what = os.path.abspath(os.fsdecode(arguments[0]))
    else:
        return
    os.write(int(os.environ["NOTES"]), (json.dumps([event, str(what)]) + chr(10)).encode())
sys.addaudithook(note)
"""
BEGIN = """
import fcntl, os, socket, struct, sys
with socket.socket() as it:
    fcntl.ioctl(it, 0x8914, struct.pack("16sh14x", b"lo", 1))
os.execv(sys.executable, [sys.executable, "-m", "gateway.cli", *sys.argv[1:]])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has namespaces")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_start_looks_up_no_name_and_writes_into_the_state_directory_only(workers: str, tmp_path: Path) -> None:
    if subprocess.run([*APART, "true"], capture_output=True).returncode:
        pytest.skip("this kernel gives no namespace")
    for name in ("notes", "home", "here", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes/sitecustomize.py").write_text(NOTES)
    text = (ROOT / "config/gateway.yaml").read_text("utf-8")
    read, write = os.pipe()
    environ = {
        **dict.fromkeys(re.findall(r"\$\{([A-Z_0-9]+)\}", text), "sk-none"),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{tmp_path}/notes:{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": f"{tmp_path}/home",
        "TMPDIR": f"{tmp_path}/home",
        "GATEWAY_STATE_DIR": f"{tmp_path}/state",
        "NOTES": str(write),
    }
    words = ["serve", "--workers", workers, "--config", str(ROOT / "config/gateway.yaml")]
    command = [*APART, sys.executable, "-c", BEGIN, *words, "--port", "0", "--admin-port", "0"]
    process = subprocess.Popen(
        command, cwd=tmp_path / "here", env=environ, pass_fds=[write], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    os.close(write)
    assert process.stdout is not None
    with process.stdout as lines, os.fdopen(read) as notes:
        shown = []
        for line in lines:
            shown.append(line.decode())
            if "listening" in shown[-1]:
                break
        process.send_signal(signal.SIGTERM)
        shown += [line.decode() for line in lines]
        assert process.wait(60) == 0, "".join(shown)
        noted = [json.loads(line) for line in notes]
    assert noted
    written = {path for event, path in noted if not event.startswith("socket.") and path != "/dev/null"}
    assert {path for path in written if not path.startswith((f"{tmp_path}/state", ":memory:"))} == set()
    assert [path for event, path in noted if event.startswith("socket.") and not is_local(path)] == []
    assert [*(tmp_path / "home").iterdir(), *(tmp_path / "here").iterdir()] == []


def is_local(address: str) -> bool:
    return re.match(r"(\('127\.0\.0\.1'|127\.0\.0\.1|/|b?'?/)", address) is not None
