"""Read the parameters of an address, and the fields of a form that a browser sends, with or without a file."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qs, parse_qsl

from gateway.api.body import Receive, read_small
from gateway.api.errors import ApiError

MOST_BYTES = 3 * 1024 * 1024
_TIME_S = 30.0
_MOST_FIELDS = 200


def read_query(scope: Any) -> dict[str, list[str]]:
    """Return the values of each parameter of an address. Raises ApiError."""
    try:
        return parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise ApiError("invalid_request", f"an address has at most {_MOST_FIELDS} parameters") from None


async def read_form(kind: str, receive: Receive, most_bytes: int = MOST_BYTES) -> dict[str, str]:
    """Return the fields of a form; of a file its text. The last field of a name counts. Raises ApiError."""
    data = await read_small(receive, "form", most_bytes, _TIME_S)
    name = kind.partition(";")[0].strip().lower()
    try:
        if name == "application/x-www-form-urlencoded":
            return dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
        if name == "multipart/form-data":
            return _parts(kind, data)
    except ValueError:
        raise ApiError("invalid_request", "the form can't be read: it must be in UTF-8") from None
    raise ApiError("unsupported_media_type", "the console reads forms only")


def _parts(kind: str, data: bytes) -> dict[str, str]:
    message = BytesParser(policy=HTTP).parsebytes(
        b"content-type: " + kind.encode("latin-1").replace(b"\n", b"") + b"\r\n\r\n" + data
    )
    fields: dict[str, str] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes) and len(fields) < _MOST_FIELDS:
            fields[name] = content.decode()
    return fields
