"""Forms (`multipart/form-data`, RFC 7578): parse the whole body of a client within bounds, and write a new one. Pure.

The bytes of a file are not copied: they stay a view of the body, and leave as one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from providers.failures import InvalidRequest
from providers.value import Value

Body: TypeAlias = bytes | memoryview
MOST_PARTS = 64
MOST_HEADERS = 8
MOST_HEADER_BYTES = 4096
MOST_TEXT_BYTES = 64 * 1024
MOST_TEXTS_BYTES = 256 * 1024
PIECE_BYTES = 256 * 1024
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
    """Return the parts of a whole form, in its order. Raises InvalidRequest for everything that is not one."""
    form = FormReader(body, boundary)
    for _ in form.steps():
        pass
    return form.parts


class FormReader:
    """Reads the parts of a whole form, in its order, within the bounds of this module.

    A delimiter counts only as a whole line, so that the same text inside a file is a part of the file.

    Attributes:
        parts: The parts, after the last step.
    """

    def __init__(self, body: Body, boundary: str) -> None:
        self.parts: tuple[FormPart, ...] = ()
        self._found: list[FormPart] = []
        self._has_ended = False
        self._view = memoryview(body)
        self._boundary = boundary.encode()
        self._piece, self._piece_at = b"", 0
        self._begin: int | None = None  # where the data of the part begins
        self._end = 0  # where the data of the last part ends that has any
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = self._texts_bytes = self._begun = 0
        self._name, self._is_file = "", False

    def steps(self, piece_bytes: int = PIECE_BYTES) -> Iterator[None]:
        """Parse the form in pieces. Raises InvalidRequest for everything that is not a form.

        Between two steps other requests may run. A whole form of 25 MB would hold them up for 20 milliseconds.
        """
        parser = MultipartParser(
            self._boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_begin": lambda: self._headers.append((b"", b"")),
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._ended,
            },
            max_header_count=MOST_HEADERS,
            max_header_size=MOST_HEADER_BYTES,
        )
        parser.logger = _SILENT
        try:
            while not self._has_ended and self._piece_at < len(self._view):
                self._piece = bytes(self._view[self._piece_at : self._piece_at + piece_bytes])
                parser.write(self._piece)
                self._piece_at += len(self._piece)
                yield
        except (FormParserError, UnicodeDecodeError):
            raise InvalidRequest(_BROKEN) from None
        closing = b"\r\n--%b--" % self._boundary
        _, _, after = bytes(self._view[self._end : self._piece_at + _LONGEST_PADDING]).partition(closing)
        rest = after[:_LONGEST_PADDING].lstrip(b" \t")
        if not self._has_ended or (rest and not rest.startswith(b"\r\n")):
            raise InvalidRequest("the form is cut off: it has no closing line")
        self.parts = tuple(self._found)

    def _part_begin(self) -> None:
        self._begun += 1
        if self._begun > MOST_PARTS:
            raise InvalidRequest(f"the form has more than {MOST_PARTS} parts")
        self._headers, self._header_bytes, self._begin = [], 0, None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._add(end - start)
        self._headers[-1] = self._headers[-1][0] + data[start:end].lower(), b""

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._add(end - start)
        name, value = self._headers[-1]
        self._headers[-1] = name, value + data[start:end]

    def _add(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > MOST_HEADER_BYTES:
            raise InvalidRequest(f"a part of the form has headers of more than {MOST_HEADER_BYTES} bytes")

    def _headers_finished(self) -> None:
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

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        # Other data than the piece are the end of the piece before, which might have begun a delimiter.
        at = self._piece_at + start if data is self._piece else self._piece_at - end
        if self._begin is None:
            self._begin = at
        self._end = at + end - start

    def _part_end(self) -> None:
        data = self._view[:0] if self._begin is None else self._view[self._begin : self._end]
        if not self._is_file:
            self._texts_bytes += len(data)
            if len(data) > MOST_TEXT_BYTES or self._texts_bytes > MOST_TEXTS_BYTES:
                limits = f"{MOST_TEXT_BYTES // 1024} KB each, and {MOST_TEXTS_BYTES // 1024} KB together"
                raise InvalidRequest(f"the texts of the form are too long: at most {limits}")
        self._found.append(FormPart(self._name, data, self._is_file))

    def _ended(self) -> None:
        self._has_ended = True


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
