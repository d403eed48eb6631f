"""The page about the audit trail and a SIEM: its rsyslog configuration, with Debian's rsyslog and a server with TLS."""

import glob
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.state.audit import Audit, verify_lines
from gateway.state.history import BEGINNING
from tests.kit.doc_pages import ROOT
from tests.kit.waiting import eventually

RSYSLOGD = shutil.which("rsyslogd") or "/usr/sbin/rsyslogd"
DRIVER = glob.glob("/usr/lib/*/rsyslog/lmnsd_ossl.so")
pytestmark = [
    pytest.mark.slow("runs rsyslog"),
    pytest.mark.skipif(not (Path(RSYSLOGD).exists() and DRIVER), reason="`make ci-tools` installs rsyslog"),
]


class Siem:
    """A server that takes syslog over TLS, by octet counts. Attributes: `messages`, in the order of their arrival."""

    def __init__(self, folder: Path) -> None:
        self.messages: list[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "siem.pem", folder / "siem.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with suppress(OSError), self._context.wrap_socket(connection, server_side=True) as secure:
            data = secure.makefile("rb")
            while digits := b"".join(iter(lambda: data.read(1).strip(), b"")):
                self.messages.append(data.read(int(digits)))

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def siem(tmp_path: Path) -> Iterator[Siem]:
    name = "siem.example.com"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", tmp_path / "siem.key", "-out", tmp_path / "siem.pem", "-subj", f"/CN={name}",
         "-addext", f"subjectAltName=DNS:{name}"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = Siem(tmp_path)
    yield server
    server.close()


def written(folder: Path, siem: Siem) -> Path:
    """Write the configuration of the page with the paths of this test, and the server's address."""
    page = (ROOT / "docs/prove/siem.md").read_text("utf-8")
    lines = [line[4:] for line in page.splitlines() if line.startswith("    ")]
    text = "\n".join(lines)
    for shown, ours in {
        "/var/spool/rsyslog": str(folder),
        "/etc/ssl/certs/siem-ca.pem": str(folder / "siem.pem"),
        'target="siem.example.com" port="6514"': f'target="127.0.0.1" port="{siem.port}"',
        "/var/lib/gateway/audit.jsonl": str(folder / "audit.jsonl"),
    }.items():
        assert shown in text
        text = text.replace(shown, ours)
    path = folder / "rsyslog.conf"
    path.write_text(f"{text}\n", "utf-8")
    return path


@contextmanager
def rsyslog(config: Path) -> Iterator[None]:
    command = [RSYSLOGD, "-n", "-f", str(config), "-i", str(config.with_name("rsyslog.pid"))]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def append(folder: Path, number: int) -> None:
    """Append lines to the trail, as the gateway does."""
    trail = Audit(folder, BEGINNING)
    for _ in range(number):
        trail.append(
            "activated", datetime(2026, 11, 27, tzinfo=UTC), {"who": "ada", "detail": "grün 绿 " + "x" * 20_000}
        )
    trail.close()


def test_lines_arrive_once_and_in_order_over_restarts_and_a_rename(tmp_path: Path, siem: Siem) -> None:
    config = written(tmp_path, siem)
    append(tmp_path, 3)
    with rsyslog(config):
        eventually(lambda: len(siem.messages) == 3, 60)
        append(tmp_path, 2)
        eventually(lambda: len(siem.messages) == 5, 60)
    append(tmp_path, 2)
    with rsyslog(config):
        eventually(lambda: len(siem.messages) == 7, 60)
        lines = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "audit.jsonl").rename(tmp_path / "audit.jsonl.1")
        (tmp_path / "audit.jsonl").write_bytes(b'{"number":8}\n')
        eventually(lambda: len(siem.messages) == 8, 60)
    sent = [re.sub(rb"^<110>1 \S+ \S+ gateway-audit - audit - ", b"", one) + b"\n" for one in siem.messages]
    assert sent == [*lines, b'{"number":8}\n']
    assert verify_lines(sent[:7], {}).faults == ()
