"""The admin client with an invalid URL, or a server that is not a gateway."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from gateway.cli.admin_client import AdminClient, NotReached
from tests.kit.case_files import cases

Answering = Callable[[bytes], str]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Return the URL of a server that answers each call with these bytes and closes the connection."""
    made: list[socket.socket] = []

    def listen(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        made.append(listener)

        def speak() -> None:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionResetError):
                connection.recv(65536)
                connection.sendall(answer)
                # Read the body before closing. Closing with unread data would reset the connection and lose the answer.
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

        threading.Thread(target=speak, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield listen
    for listener in made:
        listener.close()


@cases("url", "reason")
def test_invalid_url_is_rejected_without_being_shown(url: str, reason: str) -> None:
    with pytest.raises(NotReached) as raised:
        AdminClient(url).get("/metrics")
    assert reason in str(raised.value)
    assert "sk-word" not in str(raised.value)


@cases("answer", "message")
def test_answer_of_another_server_is_reported_without_control_characters(
    answering: Answering, answer: bytes, message: str
) -> None:
    with pytest.raises(NotReached) as raised:
        AdminClient(answering(answer)).post("/rollback", {}, "ada")
    assert message in str(raised.value)
    assert str(raised.value).isprintable()


def test_slow_answer_is_given_up_at_the_limit() -> None:
    """Each byte arrives within the socket timeout, and the answer never ends."""
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
            with pytest.raises(NotReached, match=r"did not answer completely within 0\.2 s"):
                AdminClient(f"http://127.0.0.1:{listener.getsockname()[1]}", limit_s=0.2).get("/metrics")
        finally:
            given_up.set()
            trickling.join()
