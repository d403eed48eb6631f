"""Asks the admin listener of a running gateway, as `curl` would: no proxy of the environment, no redirect followed."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gateway.model.status import OPERATOR_HEADER
from providers.sites import OriginError, parse_origin

__all__ = ["AdminClient", "NotReached"]

_LIMIT_S = 70.0
"""More than the longest compile."""
_MOST_BYTES = 16 * 1024 * 1024
_MOST_SHOWN = 300


class NotReached(Exception):
    """No gateway answered, or not as one; the message says why."""


@dataclass(frozen=True, slots=True)
class AdminClient:
    """The listener at this URL."""

    url: str
    token: str | None = field(default=None, repr=False)

    def get(self, path: str) -> str:
        """The text of a 200; raises NotReached."""
        status, body = self._ask("GET", path, None, {})
        if status != 200:
            raise NotReached(f"{self.url}{path} answers {status}: {_message(body)}")
        return body.decode("utf-8", "replace")

    def post(self, path: str, content: Mapping[str, object], operator: str) -> tuple[int, Mapping[str, object]]:
        """The status (200 or 422) and the object that came back; raises NotReached."""
        headers = {"content-type": b"application/json", OPERATOR_HEADER: operator.encode()}
        status, body = self._ask("POST", path, json.dumps(content).encode(), headers)
        if status not in (200, 422):
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
        target = urlsplit(self.url)
        kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        shown = {"authorization": f"Bearer {self.token}".encode()} if self.token is not None else {}
        try:
            connection = kind(target.hostname or "", target.port, timeout=_LIMIT_S)
            try:
                connection.request(method, target.path.rstrip("/") + path, body, {**headers, **shown})
                answer = connection.getresponse()
                return answer.status, answer.read(_MOST_BYTES)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotReached(
                f"no gateway answers at {self.url}: {_shown(str(error)) or type(error).__name__}"
            ) from None


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
    return "".join(character if character.isprintable() else "?" for character in text[:_MOST_SHOWN])
