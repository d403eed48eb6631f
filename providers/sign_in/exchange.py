"""The values of an exchange with an issuer of tokens, and how its answers are read.

An exchange is a generator: it yields each `ExchangeCall`, gets its answer as a `WireResponse`, and returns what was
issued. So it has no I/O, and one exchange can be a part of another one.

No text of an issuer leaves this module except codes of a safe form: issuers echo assertions in their descriptions.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from base64 import urlsafe_b64decode
from collections.abc import Generator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from providers.json_values import JsonError, as_map, loads, read_float, read_list, read_map, read_str
from providers.value import Value
from providers.wire import WireRequest, WireResponse

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_TOKEN = re.compile(r"[!-~]{1,32768}")
_KEY_PART = re.compile(r"[!-9;-~]{1,256}")
_PASSING = frozenset({408, 425, 429})
_EXPIRED = frozenset({"AADSTS700024", "ExpiredTokenException"})
_DEFAULT_S = 300.0


class ExchangeResult(StrEnum):
    """How an exchange ended."""

    OK = "ok"
    UNREACHABLE = "unreachable"  # no answer, or one that passes, such as 429 and 503
    REFUSED = "refused"  # the issuer does not give a token to this workload
    MALFORMED = "malformed"  # an answer that is not a token


class ExchangeFailed(Exception):
    """An exchange has failed, with a `result`. The message has our words and safe codes only.

    `retry_after_s` is the time that the issuer asks to wait.
    """

    def __init__(self, result: ExchangeResult, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.result = result
        self.retry_after_s = retry_after_s


class ExchangeCall(Value, frozen=True):
    """One request of an exchange to the host of this name in the terms: `token`, `sts` or `impersonate`.

    `silent` is the probable cause if there is no answer, in words.
    """

    host: str
    wire: WireRequest
    silent: str = ""


class Issued(Value, frozen=True):
    """A token, or AWS credentials as `ID:SECRET:SESSION`, which its `repr` does not show.

    It has either a lifetime from the sending of the request, or an end in Unix seconds.
    """

    text: str
    expires_in_s: float | None = None
    expires_at_s: float | None = None

    def __repr__(self) -> str:
        """Leave out the token."""
        return f"Issued(expires_in_s={self.expires_in_s!r}, expires_at_s={self.expires_at_s!r})"


Exchange: TypeAlias = Generator[ExchangeCall, WireResponse, Issued]


def read_code(value: object) -> str:
    """Return a code of an issuer if it has a safe form, else an empty text."""
    text = str(value) if isinstance(value, str | int) else ""
    return text if _CODE.fullmatch(text) else ""


def checked(response: WireResponse, *, passing: frozenset[int] = frozenset(), refusal: str = "") -> bytes:
    """Return the body of a success, which also has one of the `passing` statuses. Raises ExchangeFailed.

    `refusal` is the meaning of a refusal here.
    """
    status = response.status
    if 200 <= status < 300:
        return response.body
    codes = _codes_of(response.body)
    words = f"status {status}" + (f" ({', '.join(codes)})" if codes else "")
    if status < 400:
        message = f"{words}: the answer is not a token, and a redirect is not followed"
        raise ExchangeFailed(ExchangeResult.MALFORMED, message)
    passes = status >= 500 or status in _PASSING or status in passing or "IDPCommunicationError" in codes
    if not passes:
        meaning = "the subject has expired" if _EXPIRED & {*codes} else refusal
        raise ExchangeFailed(ExchangeResult.REFUSED, f"{words}{f': {meaning}' if meaning else ''}")
    raise ExchangeFailed(ExchangeResult.UNREACHABLE, words, _number(response.headers.get("retry-after")))


def _codes_of(body: bytes) -> tuple[str, ...]:
    """Return the safe codes of an error in any form of the issuers: OAuth, Entra, STS or Google."""
    try:
        error = as_map(loads(body))
    except JsonError:
        try:
            stated = [read_xml(body).get("Code")]
        except ExchangeFailed:
            return ()
    else:
        stated = [error.get("error"), read_map(error, "error").get("status"), error.get("code"), error.get("Code")]
        stated += [f"AADSTS{code}" for code in read_list(error, "error_codes")[:2] if isinstance(code, int)]
    return tuple(dict.fromkeys(code for each in stated if (code := read_code(each))))


def read_json(body: bytes) -> Mapping[str, object]:
    """Return the members of an answer in JSON. Raises ExchangeFailed."""
    try:
        return as_map(loads(body))
    except JsonError:
        raise ExchangeFailed(ExchangeResult.MALFORMED, "the answer is not JSON") from None


def read_xml(body: bytes) -> Mapping[str, object]:
    """Return the texts of an answer in XML by the name of their element. Raises ExchangeFailed, also for a DTD."""
    malformed = ExchangeFailed(ExchangeResult.MALFORMED, "the answer is not XML of the expected form")
    try:
        text = body.decode("utf-8")
        # A document type definition could define entities without end. Nothing else that is expected has "<!".
        if "<!" in text:
            raise malformed
        root = ElementTree.fromstring(text)  # noqa: S314  # without a DTD, the parser expands nothing
    except (UnicodeDecodeError, ElementTree.ParseError):
        raise malformed from None
    return {element.tag.rpartition("}")[2]: (element.text or "").strip() for element in root.iter() if not len(element)}


def read_text(body: bytes) -> Mapping[str, object]:
    """Return an answer that is a token, and its end if it is a JSON Web Token, as members of an answer."""
    token = body.decode("ascii", "replace").strip()
    end_s = end_of_jwt(token)
    return {"token": token} | ({"end": end_s} if end_s is not None else {})


def token_of(members: Mapping[str, object], name: str = "access_token", *, at: str = "") -> Issued:
    """Return the token of an answer, which is its member `name`. Raises ExchangeFailed.

    Its end is the member `at`, as Unix seconds in a text or as a time, or else `expires_in`.
    """
    token = read_str(members, name) or ""
    if not _TOKEN.fullmatch(token):
        raise ExchangeFailed(ExchangeResult.MALFORMED, f"the answer has no `{name}` that can be sent")
    if at and (ends_at_s := _moment(members.get(at))) is not None:
        return Issued(token, expires_at_s=ends_at_s)
    lifetime_s = _number(members.get("expires_in"))
    return Issued(token, expires_in_s=lifetime_s if lifetime_s is not None else _DEFAULT_S)


def credentials_of(members: Mapping[str, object], session: str) -> Issued:
    """Return AWS credentials. `session` is the member with the session token. Raises ExchangeFailed."""
    key_id, key, token = (read_str(members, name) or "" for name in ("AccessKeyId", "SecretAccessKey", session))
    ends_at_s = _moment(members.get("Expiration"))
    if not (_KEY_PART.fullmatch(key_id) and _KEY_PART.fullmatch(key) and _TOKEN.fullmatch(token)) or ends_at_s is None:
        raise ExchangeFailed(ExchangeResult.MALFORMED, "the answer has no complete credentials")
    return Issued(f"{key_id}:{key}:{token}", expires_at_s=ends_at_s)


def end_of_jwt(token: str) -> float | None:
    """Return `exp` of a JSON Web Token in Unix seconds, which is not verified. None for another text."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = as_map(loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))))
    except ValueError:
        return None
    return read_float(claims, "exp")


def _moment(value: object) -> float | None:
    """Return the Unix seconds of a time that is a number, a number in a text, or a text in ISO 8601."""
    if (number := _number(value)) is not None or not isinstance(value, str):
        return number
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None


def _number(value: object) -> float | None:
    """Return a number of seconds, which may be written in digits, or None."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        return float(value)
    return read_float({"value": value}, "value")
