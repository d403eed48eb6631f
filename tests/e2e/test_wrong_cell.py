"""Status 421 on a real socket: decided from the headers alone and sent complete at once, however large the body is."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, SITES, config_for
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway

HOME = "https://cn.assistant.example"
CELL = f"cell: {{territory: DE, serves: [eu, default], homes: {{cn: '{HOME}'}}}}"
PROMPT = b"what must not be read here "
MEGABYTE = 1024 * 1024
LIMIT_S = 90
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncf-ipcountry: CN\r\n"
    b"authorization: Bearer " + APP_KEY.encode() + b"\r\n"
)


@pytest.fixture(scope="module")
def cell(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    path = config_for(providers, PATIENT, CELL).write(tmp_path_factory.mktemp("cell"))
    with running_gateway(path, KEYS) as process:
        yield process


def connect(cell: GatewayProcess) -> socket.socket:
    host, port = cell.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=LIMIT_S)


def rest_of(connection: socket.socket) -> bytes:
    """Return all bytes up to the orderly end of the connection. A reset would raise."""
    answer = b""
    while piece := connection.recv(65_536):
        answer += piece
    return answer


def check(answer: bytes) -> None:
    """Check that this is the complete answer and nothing else."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0].startswith(b"http/1.1 421 ")
    assert b"connection: close" in lines
    assert b"location: " + HOME.encode() in lines
    assert b"content-length: %d" % len(body) in lines
    error = json.loads(body)["error"]
    assert (error["code"], error["home"]) == ("wrong_cell", HOME)


def with_length(size: int) -> Iterator[bytes]:
    yield HEAD + b"content-length: %d\r\n\r\n" % size
    piece = PROMPT * 4000
    for start in range(0, size, len(piece)):
        yield piece[: size - start]


def chunked(size: int) -> Iterator[bytes]:
    yield HEAD + b"transfer-encoding: chunked\r\n\r\n"
    piece = PROMPT * 4000
    for start in range(0, size, len(piece)):
        part = piece[: size - start]
        yield b"%x\r\n%b\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("size", [0, 1, 100_000, 20 * MEGABYTE], ids=lambda size: f"{size} bytes")
@pytest.mark.parametrize("upload", [with_length, chunked])
def test_client_that_sends_everything_first_gets_the_complete_answer(
    cell: GatewayProcess, providers: SimulatorThread, upload: object, size: int
) -> None:
    before = [providers[name].accepted for name in SITES]
    assert callable(upload)
    with connect(cell) as connection:
        for piece in upload(size):
            connection.sendall(piece)
        check(rest_of(connection))
    assert [providers[name].accepted for name in SITES] == before


@pytest.mark.parametrize("upload", [with_length, chunked])
def test_client_that_reads_while_sending_gets_the_complete_answer(cell: GatewayProcess, upload: object) -> None:
    assert callable(upload)
    answers: list[bytes] = []

    def read() -> None:
        head = b""
        while b"\r\n\r\n" not in head or not head.endswith(b"}"):
            piece = connection.recv(65_536)
            assert piece
            head += piece
        answers.append(head)

    with connect(cell) as connection:
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for piece in upload(200 * MEGABYTE):
                connection.sendall(piece)
        except OSError:
            # The gateway reads no more than its limit.
            pass
        reader.join(LIMIT_S)
    [answer] = answers
    check(answer)


def test_answer_is_sent_before_any_byte_of_the_body(cell: GatewayProcess) -> None:
    for more in (b"content-length: 5000000\r\n", b"transfer-encoding: chunked\r\n"):
        with connect(cell) as connection:
            connection.sendall(HEAD + more + b"\r\n")
            head = connection.recv(65_536)
            check(head)
            connection.shutdown(socket.SHUT_WR)
            assert rest_of(connection) == b""


@pytest.mark.slow("the server reads a body for five seconds")
def test_client_that_sends_nothing_is_not_waited_for(cell: GatewayProcess) -> None:
    with connect(cell) as connection:
        connection.sendall(HEAD + b"content-length: 5000000\r\n\r\n" + PROMPT)
        check(rest_of(connection))
