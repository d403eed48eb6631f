"""Forms (`multipart/form-data`, RFC 7578): parse the whole body of a client within bounds, and write a new one. Pure.

The bytes of a file are not copied: they stay a view of the body, and leave as one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from providers.failures import InvalidRequest
from providers.value import Value

Body: TypeAlias = bytes | bytearray
MOST_PARTS = 64
MOST_HEADERS = 8
MOST_HEADER_BYTES = 4096
MOST_TEXT_BYTES = 64 * 1024
MOST_TEXTS_BYTES = 256 * 1024
MOST_BOUNDARY = 70
_SILENT = logging.getLogger(f"{__name__}.parser")  # the parser's own prints bytes of a form
_SILENT.disabled = True
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_LONGEST_PADDING = 64
_BROKEN = "the form is broken: send `multipart/form-data` as curl -F and the SDKs do"


class FormPart(Value, frozen=True):
    """A part of a form: a text, or a file if it has a file name, which is not kept."""

    name: str
    data: memoryview
    is_file: bool

    def __repr__(self) -> str:
        """Do not show the data."""
        return f"FormPart({self.name!r}, {len(self.data)} bytes)"


def boundary_of(content_type: str) -> str | None:
    """Return the boundary of a content type, or None if it is not that of a form with one valid boundary."""
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        return None
    given = re.findall(r';\s*boundary\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s"]+)', content_type, re.IGNORECASE)
    if len(given) != 1 or len(re.findall(r"boundary\s*=", content_type, re.IGNORECASE)) != 1:
        return None
    boundary: str = re.sub(r"\\(.)", r"\1", given[0][1:-1]) if given[0].startswith('"') else given[0]
    return boundary if _BOUNDARY.fullmatch(boundary) else None


def parse_form(body: Body, boundary: str) -> tuple[FormPart, ...]:
    """Return the parts of a whole form, in its order. Raises InvalidRequest for everything that is not one.

    A delimiter counts only as a whole line, so that the same text inside a file is a part of the file.
    """
    reader = _Reader(body)
    parser = MultipartParser(
        boundary.encode(),
        {
            "on_part_begin": reader.part_begin,
            "on_header_field": reader.header_field,
            "on_header_value": reader.header_value,
            "on_headers_finished": reader.headers_finished,
            "on_part_data": reader.part_data,
            "on_part_end": reader.part_end,
            "on_end": reader.end,
        },
        max_header_count=MOST_HEADERS,
        max_header_size=MOST_HEADER_BYTES,
    )
    parser.logger = _SILENT
    try:
        parser.write(body)  # type: ignore[arg-type]  # it reads a bytearray as it reads bytes
    except (FormParserError, UnicodeDecodeError, TypeError):  # of an array that is cut off, it compares the end wrongly
        raise InvalidRequest(_BROKEN) from None
    closing = b"\r\n--%b--" % boundary.encode()
    end = body.find(closing, max(reader.data_end, 0))
    rest = bytes(body[end + len(closing) :][:_LONGEST_PADDING]).lstrip(b" \t")
    if not reader.has_ended or (rest and not rest.startswith(b"\r\n")):
        raise InvalidRequest("the form is cut off: it has no closing line")
    return tuple(reader.parts)


class _Reader:
    """Collects the parts that the parser finds, within the bounds of this module."""

    def __init__(self, body: Body) -> None:
        self.parts: list[FormPart] = []
        self.has_ended = False
        self.data_end = 0  # where the data of the last part ends that has any
        self._view = memoryview(body)
        self._data = self._view[:0]
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = self._texts_bytes = self._begun = 0
        self._name, self._is_file = "", False

    def part_begin(self) -> None:
        self._begun += 1
        if self._begun > MOST_PARTS:
            raise InvalidRequest(f"the form has more than {MOST_PARTS} parts")
        self._headers, self._header_bytes, self._data = [], 0, self._view[:0]

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._add(end - start)
        self._headers.append((bytes(data[start:end]).lower(), b""))

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._add(end - start)
        self._headers[-1] = self._headers[-1][0], bytes(data[start:end])

    def _add(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > MOST_HEADER_BYTES:
            raise InvalidRequest(f"a part of the form has headers of more than {MOST_HEADER_BYTES} bytes")

    def headers_finished(self) -> None:
        """Read the name of the part, and whether it is a file."""
        given = [value for name, value in self._headers if name == b"content-disposition"]
        codings = [value.lower() for name, value in self._headers if name == b"content-transfer-encoding"]
        if len(given) != 1 or any(value not in (b"7bit", b"8bit", b"binary") for value in codings):
            raise InvalidRequest(_BROKEN)
        parameters = _parameters(given[0].decode())
        if parameters is None or "name" not in parameters:
            raise InvalidRequest("a part of the form has no `name`")
        self._name = parameters["name"]
        self._is_file = "filename" in parameters

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._data, self.data_end = self._view[start:end], end

    def part_end(self) -> None:
        if not self._is_file:
            self._texts_bytes += len(self._data)
            if len(self._data) > MOST_TEXT_BYTES or self._texts_bytes > MOST_TEXTS_BYTES:
                limits = f"{MOST_TEXT_BYTES // 1024} KB each, and {MOST_TEXTS_BYTES // 1024} KB together"
                raise InvalidRequest(f"the texts of the form are too long: at most {limits}")
        self.parts.append(FormPart(self._name, self._data, self._is_file))

    def end(self) -> None:
        self.has_ended = True


def _parameters(disposition: str) -> dict[str, str] | None:
    """Return the parameters of a `content-disposition` of a form, or None if it is another one or not clear."""
    if disposition.partition(";")[0].strip().lower() != "form-data":
        return None
    simple = re.fullmatch(
        r'form-data((?:\s*;\s*[a-zA-Z*]+=(?:"(?:[^"\\]|\\.)*"|[^;"\s]*))*)\s*;?\s*', disposition.strip(), re.IGNORECASE
    )
    if simple is None:
        return None
    found: dict[str, str] = {}
    for key, value in re.findall(r';\s*([a-zA-Z*]+)=("(?:[^"\\]|\\.)*"|[^;"\s]*)', simple[1]):
        name, text = key.lower(), value[1:-1] if value.startswith('"') else value
        if name.startswith("filename"):
            name = "filename"  # `filename*` alone is one too; its value is never read
        elif name in found:
            return None
        found[name] = text
    return found


def text_of_part(part: FormPart) -> str:
    """Return the text of a part. Raises InvalidRequest if it is not UTF-8."""
    try:
        return bytes(part.data).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"`{part.name[:64]}` is not UTF-8", part.name[:64]) from None


def written_form(
    fields: Iterable[tuple[str, str]], data: memoryview, filename: str, content_type: str, boundary: str
) -> tuple[str, bytes, tuple[bytes | memoryview, ...]]:
    """Return a new form with the file last: its content type, its beginning, and the pieces after that.

    No file ends its part early, because its writer does not know the boundary. The file is not searched for it.
    """
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode("utf-8", "replace")
        for name, text in fields
    ]
    head = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{filename}"\r\n'
    parts.append(f"{head}content-type: {content_type}\r\n\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", b"".join(parts), (data, f"\r\n--{boundary}--\r\n".encode())
