"""Asks the admin listener of a running gateway, as `curl` would: no proxy of the environment, no redirect followed."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread
from urllib.parse import urlsplit

from gateway.config.problems import visible
from gateway.model.status import OPERATOR_HEADER
from providers.sites import OriginError, parse_origin

_LIMIT_S = 70.0
"""More than the longest compile."""
_MOST_BYTES = 16 * 1024 * 1024
_MOST_SHOWN = 300


class NotReached(Exception):
    """No gateway answered, or not as one; the message says why."""


@dataclass(frozen=True, slots=True)
class AdminClient:
    """The listener at this URL. limit_s: how long one call may take, from the look-up of the host to the last byte."""

    url: str
    token: str | None = field(default=None, repr=False)
    limit_s: float = _LIMIT_S

    def get(self, path: str) -> str:
        """The text of a 200; raises NotReached."""
        status, body = self._ask("GET", path, None, {})
        if status != 200:
            raise NotReached(f"{self.url}{path} answers {status}: {_message(body)}")
        return body.decode("utf-8", "replace")

    def post(self, path: str, content: Mapping[str, object], operator: str) -> tuple[int, Mapping[str, object]]:
        """The status (200, 422 or 503) and the object that came back; raises NotReached."""
        headers = {"content-type": b"application/json", OPERATOR_HEADER: operator.encode()}
        status, body = self._ask("POST", path, json.dumps(content).encode(), headers)
        if status not in (200, 422, 503):
            raise NotReached(f"{self.url}{path} answers {status}: {_message(body)}")
        answer = _object(body)
        if "result" not in answer:
            raise NotReached(f"{self.url}{path} answers {status}: {_message(body)}")
        return status, answer

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, bytes]) -> tuple[int, bytes]:
        try:
            parse_origin(self.url)
        except OriginError as error:  # it may hold a password, so it is not shown
            raise NotReached(f"the URL of the admin listener {error}; such as http://127.0.0.1:8081") from None
        headers = {**headers, "authorization": f"Bearer {self.token}".encode()} if self.token is not None else headers
        answer: Future[tuple[int, bytes]] = Future()

        def call() -> None:
            try:
                answer.set_result(self._call(method, path, body, headers))
            except Exception as error:  # it is raised where the answer is waited for
                answer.set_exception(error)

        # A timeout of the socket bounds one read: who sends byte by byte would be waited for without end.
        Thread(target=call, daemon=True).start()
        try:
            return answer.result(self.limit_s)
        except TimeoutError:
            raise NotReached(f"{self.url} hasn't answered in full within {self.limit_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotReached(
                f"no gateway answers at {self.url}: {_shown(str(error)) or type(error).__name__}"
            ) from None

    def _call(self, method: str, path: str, body: bytes | None, headers: Mapping[str, bytes]) -> tuple[int, bytes]:
        target = urlsplit(self.url)
        kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        connection = kind(target.hostname or "", target.port, timeout=self.limit_s)
        try:
            connection.request(method, target.path.rstrip("/") + path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_MOST_BYTES)
        finally:
            connection.close()


def _object(body: bytes) -> Mapping[str, object]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _message(body: bytes) -> str:
    error = _object(body).get("error")
    return _shown(str(error.get("message"))) if isinstance(error, dict) else "no word of why"


def _shown(text: str) -> str:
    """What a stranger's server says, fit for a terminal."""
    return visible(text[:_MOST_SHOWN])
