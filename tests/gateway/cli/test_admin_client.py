"""What is told where a URL is none of an admin listener, or whoever answers there is no gateway."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from gateway.cli.admin_client import AdminClient, NotReached

Answering = Callable[[bytes], str]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """The URL of somebody who answers each call with these bytes, and hangs up."""
    made: list[socket.socket] = []

    def listen(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        made.append(listener)

        def speak() -> None:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionResetError):
                connection.recv(65536)
                connection.sendall(answer)
                # The body comes behind the head: to close on what is unread would reset away the answer.
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

        threading.Thread(target=speak, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield listen
    for listener in made:
        listener.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://[::1", "is not a URL"),
        ("http://x:99999", "must have a port from 1 to 65535"),
        ("http://", "has no valid host name"),
        ("ftp://x", "must start with https://"),
        ("8081", "must start with https://"),
        ("http://ada:sk-word@127.0.0.1:1", "must not carry a user name or password"),
    ],
)
def test_what_is_no_url_is_told_and_not_repeated(url: str, reason: str) -> None:
    with pytest.raises(NotReached) as raised:
        AdminClient(url).get("/metrics")
    assert reason in str(raised.value)
    assert "sk-word" not in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "no gateway answers at"),
        (b"\x1b[31m\0\r\n\r\n", "no gateway answers at"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n<html>hi</html>", "answers 200: no word of why"),
        (b'HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{"result": "act', "answers 200: no word of why"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "answers 302"),
        (b'HTTP/1.1 401 No\r\nconnection: close\r\n\r\n{"error":{"message":"\\u001b[31m stop"}}', "\\x1b[31m stop"),
    ],
)
def test_whoever_is_no_gateway_is_told_in_words_that_a_terminal_bears(
    answering: Answering, answer: bytes, told: str
) -> None:
    with pytest.raises(NotReached) as raised:
        AdminClient(answering(answer)).post("/rollback", {}, "ada")
    assert told in str(raised.value)
    assert str(raised.value).isprintable()


def test_who_answers_byte_by_byte_is_not_waited_for_beyond_the_limit() -> None:
    """Each byte comes in time for a socket's timeout, and the answer never ends."""
    given_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nx-never-ends: ")
                while not given_up.wait(0.01):
                    connection.sendall(b"a")

        trickling = threading.Thread(target=trickle)
        trickling.start()
        try:
            with pytest.raises(NotReached, match=r"hasn't answered in full within 0\.2 s"):
                AdminClient(f"http://127.0.0.1:{listener.getsockname()[1]}", limit_s=0.2).get("/metrics")
        finally:
            given_up.set()
            trickling.join()
