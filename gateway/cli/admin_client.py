"""A client for the admin listener of a running gateway. It uses no proxy and follows no redirect."""

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
"""Longer than the longest compilation of a config."""
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_MAX_SHOWN_CHARACTERS = 300


class NotReached(Exception):
    """No gateway answered, or the answer is not one of a gateway. The message states the reason."""


@dataclass(frozen=True, slots=True)
class AdminClient:
    """A client for one admin listener.

    Attributes:
        url: the listener's URL.
        token: the admin token, if the listener needs one.
        limit_s: the most seconds for one call, from the lookup of the host to the last byte.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    limit_s: float = _LIMIT_S

    def get(self, path: str) -> str:
        """Return the body of an answer with status 200, as text. Raises NotReached."""
        status, body = self._request("GET", path, None, {})
        if status != 200:
            raise NotReached(f"{self.url}{path} answers {status}: {_error_message(body)}")
        return body.decode("utf-8", "replace")

    def post(self, path: str, content: Mapping[str, object], operator: str) -> tuple[int, Mapping[str, object]]:
        """Return the status (200, 422 or 503) and the JSON object of the answer. Raises NotReached."""
        headers = {"content-type": b"application/json", OPERATOR_HEADER: operator.encode()}
        status, body = self._request("POST", path, json.dumps(content).encode(), headers)
        if status not in (200, 422, 503):
            raise NotReached(f"{self.url}{path} answers {status}: {_error_message(body)}")
        answer = _json_object(body)
        if "result" not in answer:
            raise NotReached(f"{self.url}{path} answers {status}: {_error_message(body)}")
        return status, answer

    def call(
        self, method: str, path: str, content: Mapping[str, object] | None, operator: str
    ) -> tuple[int, Mapping[str, object]]:
        """Return the status and the JSON object of an answer of the admin API. Raises NotReached."""
        headers = {OPERATOR_HEADER: operator.encode()}
        if content is not None:
            headers["content-type"] = b"application/json"
        body = json.dumps(content).encode() if content is not None else None
        status, answer = self._request(method, path, body, headers)
        decoded = _json_object(answer)
        if not decoded:
            raise NotReached(f"{self.url}{path} answers {status}, and not in JSON")
        return status, decoded

    def _request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, bytes]) -> tuple[int, bytes]:
        try:
            parse_origin(self.url)
        except OriginError as error:  # the URL may contain a password, so it is not shown
            raise NotReached(f"the URL of the admin listener {error}; for example http://127.0.0.1:8081") from None
        headers = {**headers, "authorization": f"Bearer {self.token}".encode()} if self.token is not None else headers
        answer: Future[tuple[int, bytes]] = Future()

        def call() -> None:
            try:
                answer.set_result(self._call(method, path, body, headers))
            except Exception as error:  # raised again in the thread that waits for the answer
                answer.set_exception(error)

        # A socket timeout limits one read only: a server that sends single bytes would never reach it.
        Thread(target=call, daemon=True).start()
        try:
            return answer.result(self.limit_s)
        except TimeoutError:
            raise NotReached(f"{self.url} did not answer completely within {self.limit_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotReached(
                f"no gateway answers at {self.url}: {_printable(str(error)) or type(error).__name__}"
            ) from None

    def _call(self, method: str, path: str, body: bytes | None, headers: Mapping[str, bytes]) -> tuple[int, bytes]:
        target = urlsplit(self.url)
        connection_class = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        connection = connection_class(target.hostname or "", target.port, timeout=self.limit_s)
        try:
            connection.request(method, target.path.rstrip("/") + path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_MAX_ANSWER_BYTES)
        finally:
            connection.close()


def _json_object(body: bytes) -> Mapping[str, object]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _error_message(body: bytes) -> str:
    error = _json_object(body).get("error")
    return _printable(str(error.get("message"))) if isinstance(error, dict) else "no reason given"


def _printable(text: str) -> str:
    """Return text from an unknown server, cut to 300 characters and safe for a terminal."""
    return visible(text[:_MAX_SHOWN_CHARACTERS])
