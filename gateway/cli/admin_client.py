"""A client for the admin listener of a running gateway. It uses no proxy and follows no redirect."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from urllib.parse import urlencode, urlsplit

from gateway.config.problems import visible
from gateway.model.status import OPERATOR_HEADER, ROWS_DELETED_HEADER
from gateway.operator_errors import CommandError
from providers.sites import OriginError, parse_origin

_LIMIT_S = 70.0
"""Longer than the longest compilation of a config."""
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_MAX_SHOWN_CHARACTERS = 300


class NotReached(CommandError):
    """No gateway answered, or the answer is not one of a gateway. The message states the reason."""


class AdminAnswer(dict[str, Any]):
    """A JSON object of a gateway, perhaps of another release: a member that it does not have is None."""

    def __missing__(self, name: str) -> None:
        return None


@dataclass(frozen=True, slots=True)
class AdminClient:
    """A client for one admin listener. A call takes `limit_s` at most, from the lookup to the last byte."""

    url: str
    token: str | None = field(default=None, repr=False)
    limit_s: float = _LIMIT_S

    def get(self, path: str) -> str:
        """Return the body of an answer with status 200, as text. Raises NotReached."""
        status, body = self._request("GET", path, None, "")
        if status != 200:
            raise NotReached(f"{self.url}{path} answers {status}: {error_message(_json_object(body))}")
        return body.decode("utf-8", "replace")

    def post(self, path: str, content: Mapping[str, object], operator: str) -> tuple[int, Mapping[str, object]]:
        """Return the status (200, 422 or 503) and the JSON object of the answer. Raises NotReached."""
        status, body = self._request("POST", path, content, operator)
        answer = _json_object(body)
        if status not in (200, 422, 503) or "result" not in answer:
            raise NotReached(f"{self.url}{path} answers {status}: {error_message(answer)}")
        return status, answer

    def call(
        self, method: str, path: str, content: Mapping[str, object] | None, operator: str
    ) -> tuple[int, Mapping[str, object]]:
        """Return the status and the JSON object of an answer of the admin API. Raises NotReached."""
        status, body = self._request(method, path, content, operator)
        answer = _json_object(body)
        if not answer:
            raise NotReached(f"{self.url}{path} answers {status}, and not in JSON")
        if error_message(answer).startswith("there is no endpoint at this path"):
            raise NotReached(f"the gateway at {self.url} has no {path.partition('?')[0]}: is it of an earlier release?")
        return status, answer

    def report(self, path: str, query: Mapping[str, object], members: Collection[str]) -> dict[str, Any]:
        """Return a report of the admin API, which has these members. Raises CommandError."""
        status, answer = self.call("GET", f"{path}?{urlencode(query)}", None, "")
        if isinstance(answer.get("error"), dict):
            raise CommandError(error_message(answer))
        if not set(members) <= set(answer):
            raise CommandError(f"{self.url} answers {status}, and not with a report: is it an older version?")
        return dict(answer)

    def lines(self, path: str, rows_deleted: Callable[[str], None]) -> Iterator[str]:
        """Yield the lines of an answer of any length, which are JSON. Raises NotReached.

        `rows_deleted` gets the last day whose rows were deleted, if there is one.
        """
        self._check_url()
        try:
            with closing(self._connection()) as connection:
                connection.request("GET", self._target(path), headers=self._headers({}))
                answer = connection.getresponse()
                if answer.status != 200:
                    message = error_message(_json_object(answer.read(_MAX_ANSWER_BYTES)))
                    raise NotReached(f"{self.url} answers {answer.status}: {message}")
                while line := answer.readline(_MAX_ANSWER_BYTES):
                    if not line.endswith(b"}\n"):
                        raise NotReached(f"{self.url} broke off its answer")
                    yield line.decode("utf-8", "replace")
                if day := answer.getheader(ROWS_DELETED_HEADER):
                    rows_deleted(day)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._not_reached(error) from None

    def _request(
        self, method: str, path: str, content: Mapping[str, object] | None, operator: str
    ) -> tuple[int, bytes]:
        self._check_url()
        headers = self._headers({OPERATOR_HEADER: operator.encode()})
        if content is not None:
            headers["content-type"] = b"application/json"
        body = json.dumps(content).encode() if content is not None else None
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
            raise self._not_reached(error) from None

    def _check_url(self) -> None:
        try:
            parse_origin(self.url)
        except OriginError as error:  # the URL may contain a password, so it is not shown
            raise NotReached(f"the URL of the admin listener {error}; for example http://127.0.0.1:8081") from None

    def _not_reached(self, error: Exception) -> NotReached:
        reason = getattr(error, "strerror", None) or str(error)
        return NotReached(f"no gateway answers at {self.url}: {_printable(reason) or type(error).__name__}")

    def _headers(self, headers: dict[str, bytes]) -> dict[str, bytes]:
        return {**headers, "authorization": f"Bearer {self.token}".encode()} if self.token is not None else headers

    def _target(self, path: str) -> str:
        return urlsplit(self.url).path.rstrip("/") + path

    def _connection(self) -> http.client.HTTPConnection:
        target = urlsplit(self.url)
        connection_class = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        return connection_class(target.hostname or "", target.port, timeout=self.limit_s)

    def _call(self, method: str, path: str, body: bytes | None, headers: Mapping[str, bytes]) -> tuple[int, bytes]:
        with closing(self._connection()) as connection:
            connection.request(method, self._target(path), body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_MAX_ANSWER_BYTES)


def _json_object(body: bytes) -> Mapping[str, object]:
    try:
        answer = json.loads(body, object_hook=AdminAnswer)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, AdminAnswer) else {}


def error_message(answer: Mapping[str, object]) -> str:
    """Return the message of an error of the admin API, safe for a terminal."""
    error = answer.get("error")
    return _printable(str(error.get("message"))) if isinstance(error, dict) else "no reason given"


def _printable(text: str) -> str:
    """Return text from an unknown server, cut to 300 characters and safe for a terminal."""
    return visible(text[:_MAX_SHOWN_CHARACTERS])
