"""Forms (`multipart/form-data`, RFC 7578): parse the whole body of a client within bounds, and write a new one. Pure.

The bytes of a file are not copied: they stay a view of the body, and leave as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, TypeAlias

from providers.failures import InvalidRequest
from providers.value import Value

Body: TypeAlias = bytes | memoryview
MOST_PARTS = 64
MOST_HEADERS = 8
MOST_HEADER_BYTES = 4096
MOST_TEXT_BYTES = 64 * 1024
MOST_TEXTS_BYTES = 256 * 1024
PIECE_BYTES = 256 * 1024
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_LINE_END = re.compile(rb"(?:(--)[ \t]{0,64}(?:\r\n|\Z)|[ \t]{0,64}\r\n)")
_LINE_END_BYTES = len("--") + 64 + len("\r\n")
_PARAMETER = re.compile(r';\s*+([a-zA-Z*]++)=("(?:[^"\\]|\\.)*+"|[^;"\s]*+)\s*+')
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*+([^\r\n]*)")
_HEAD_BYTES = MOST_HEADER_BYTES + 16 * MOST_HEADERS
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
    """Reads the `parts` of a whole form, in its order, within the bounds of this module.

    A delimiter counts only as a whole line, so that the same text inside a file is a part of the file. The first text
    that begins as one nearly always is one. If it is not, an expression for this boundary searches on, since a hostile
    file has a million such lines. To compile it takes longer than to read a small form.
    """

    def __init__(self, body: Body, boundary: str) -> None:
        self.parts: tuple[FormPart, ...] = ()
        self._view = memoryview(body)
        self._whole: Any = self._view.obj  # a view has no `find`; it begins where its object does
        self._begin = b"\r\n--" + boundary.encode()
        self._most_line = len(self._begin) + _LINE_END_BYTES

    def steps(self, piece_bytes: int = PIECE_BYTES) -> Iterator[None]:
        """Parse the form in pieces. Raises InvalidRequest for everything that is not a form.

        Between two steps other requests may run.
        """
        found: list[FormPart] = []
        texts_bytes = 0
        first = len(self._begin) - 2  # no line end comes before the first line
        line_end = _LINE_END.match(self._view, first) if self._view[:first] == self._begin[2:] else None
        if line_end is None:
            raise InvalidRequest(_BROKEN)
        at, is_last = line_end.end(), line_end[1] is not None
        while not is_last:
            if len(found) == MOST_PARTS:
                raise InvalidRequest(f"the form has more than {MOST_PARTS} parts")
            name, is_file, begin = self._headers(at)
            at = begin - 2  # the end of the headers may be that of a line without data
            while (line := self._line_in(at, piece_bytes)) is None and at + piece_bytes < len(self._view):
                at += piece_bytes
                yield
            if line is None:
                raise InvalidRequest("the form is cut off: it has no closing line")
            end, at, is_last = line
            data = self._view[begin : max(begin, end)]
            texts_bytes += 0 if is_file else len(data)
            if not is_file and (len(data) > MOST_TEXT_BYTES or texts_bytes > MOST_TEXTS_BYTES):
                limits = f"{MOST_TEXT_BYTES // 1024} KB each, and {MOST_TEXTS_BYTES // 1024} KB together"
                raise InvalidRequest(f"the texts of the form are too long: at most {limits}")
            found.append(FormPart(name, data, is_file))
        self.parts = tuple(found)

    def _line_in(self, at: int, piece_bytes: int) -> tuple[int, int, bool] | None:
        """Return where the first delimiter that begins in a piece begins and ends, and whether it is the last."""
        end = min(at + piece_bytes + self._most_line, len(self._view))
        begin = self._whole.find(self._begin, at, end)
        if begin < 0:
            return None
        line_end = _LINE_END.match(self._view, begin + len(self._begin), end)
        if line_end is None:
            line_end = re.compile(re.escape(self._begin) + _LINE_END.pattern).search(self._view, begin, end)
            begin = line_end.start() if line_end is not None else end
        return (begin, line_end.end(), line_end[1] is not None) if line_end and begin < at + piece_bytes else None

    def _headers(self, at: int) -> tuple[str, bool, int]:
        """Return the name of the part whose headers begin here, whether it is a file, and where its data begin."""
        text, end, _ = bytes(self._view[at : at + _HEAD_BYTES]).partition(b"\r\n\r\n")
        lines = text.split(b"\r\n")
        headers = [(one[1].lower(), one[2]) for line in lines if (one := _HEADER.fullmatch(line)) is not None]
        if len(lines) > MOST_HEADERS or sum(map(len, chain(*headers))) > MOST_HEADER_BYTES or len(text) == _HEAD_BYTES:
            limits = f"{MOST_HEADERS} headers, or of more than {MOST_HEADER_BYTES} bytes"
            raise InvalidRequest(f"a part of the form has more than {limits}")
        given = [value for name, value in headers if name == b"content-disposition"]
        codings = [value.lower() for name, value in headers if name == b"content-transfer-encoding"]
        is_plain = end and len(headers) == len(lines) and all(one in (b"7bit", b"8bit", b"binary") for one in codings)
        if not is_plain or len(given) != 1:
            raise InvalidRequest(_BROKEN)
        try:
            parameters = _parameters(given[0].decode())
        except UnicodeDecodeError:
            raise InvalidRequest(_BROKEN) from None
        if parameters is None or "name" not in parameters:
            raise InvalidRequest("a part of the form has no `name`")
        return parameters["name"], "filename" in parameters, at + len(text) + len(end)


def _parameters(disposition: str) -> dict[str, str] | None:
    """Return the parameters of a `content-disposition` of a form, or None if it is another one or not clear."""
    kind, semicolon, rest = disposition.partition(";")
    if kind.strip().lower() != "form-data":
        return None
    found: dict[str, str] = {}
    at, given = 0, (semicolon + rest).strip().removesuffix(";")
    while at < len(given):
        if (parameter := _PARAMETER.match(given, at)) is None:
            return None
        at, (key, value) = parameter.end(), parameter.groups()
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
        name, problem = part.name[:64], "is not UTF-8"
        raise InvalidRequest(f"`{name}` {problem}", name, log_message=f"a text of the form {problem}") from None


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
