"""A start of the gateway without a network, in a namespace of its own, with notes of what it looks up and writes."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

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


def assert_starts_alone(python: Path | str, folder: Path, config: Path, workers: str = "1", path: str = "") -> None:
    """Start `gateway serve` and end it. It may look no name up, and write into its state directory only.

    Args:
        python: The interpreter that has the gateway.
        folder: An empty folder.
        config: The configuration, whose secrets are not real.
        workers: How many workers it starts.
        path: The folder of the gateway, for PYTHONPATH.
    """
    if subprocess.run([*APART, "true"], capture_output=True).returncode:
        pytest.skip("this kernel gives no namespace")
    for name in ("notes", "home", "here", "state"):
        (folder / name).mkdir()
    (folder / "notes/sitecustomize.py").write_text(NOTES)
    read, write = os.pipe()
    environ = {
        **dict.fromkeys(re.findall(r"\$\{([A-Z_0-9]+)\}", config.read_text("utf-8")), "sk-none"),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{folder}/notes:{path}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": f"{folder}/home",
        "TMPDIR": f"{folder}/home",
        "GATEWAY_STATE_DIR": f"{folder}/state",
        "NOTES": str(write),
    }
    words = ["serve", "--workers", workers, "--config", str(config), "--port", "0", "--admin-port", "0"]
    process = subprocess.Popen(
        [*APART, str(python), "-c", BEGIN, *words],
        cwd=folder / "here",
        env=environ,
        pass_fds=[write],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
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
    written = {place for event, place in noted if not event.startswith("socket.") and place != "/dev/null"}
    assert {place for place in written if not place.startswith((f"{folder}/state", ":memory:"))} == set()
    assert [place for event, place in noted if event.startswith("socket.") and not _is_local(place)] == []
    assert [*(folder / "home").iterdir(), *(folder / "here").iterdir()] == []


def _is_local(address: str) -> bool:
    return re.match(r"(\('127\.0\.0\.1'|127\.0\.0\.1|/|b?'?/)", address) is not None
