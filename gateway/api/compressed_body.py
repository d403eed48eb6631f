"""Decompress the body of a request in pieces of bounded size, within the limits of a plain body (RFC 9110, 8.4).

gzip and deflate are always read, zstd (RFC 8878) with the extra `zstd`. No client is known that sends `br`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec

from gateway.api.body import BODY_TIME_S, check_body_size
from gateway.api.body_room import SMALL_BODY_BYTES, BodyRoom
from gateway.api.errors import ApiError
from gateway.execution.deadline import Deadline
from gateway.model.caller import RequestHeaders
from providers.transport.decoding import decoder_for
from providers.transport.errors import BadResponse

MOST_RATIO = 200
"""The limit of expansion. Conversations expand 3 to 30 times; zeros 1,000 times in gzip and far more in zstd."""
_LITTLE_BYTES = 1024 * 1024
_PIECE_BYTES = SMALL_BODY_BYTES
_READ_BYTES = 64 * 1024
# The window that every decoder of HTTP has to support (RFC 9659); a larger one would take memory.
_MOST_WINDOW_BYTES = 8 * 1024 * 1024
_WITHOUT = "send the body with `content-encoding: gzip`, or without the header"


def coding_of(visitor: RequestHeaders) -> str | None:
    """Return the coding of a body, or None for a plain one. Raises ApiError (unsupported_media_type) for others."""
    listed = b",".join(visitor.values(b"content-encoding")).decode("latin-1").lower().split(",")
    codings = [coding for entry in listed if (coding := entry.strip()) not in ("", "identity")]
    match codings:
        case []:
            return None
        case ["gzip" | "x-gzip" | "deflate" as coding]:
            return coding
        case ["zstd"] if find_spec("zstandard") is not None:
            return "zstd"
        case ["zstd"]:
            problem = "this gateway does not read zstd: its operator has not installed its extra `zstd`"
        case [_]:
            problem = "this `content-encoding` is not supported"
        case _:
            problem = "a body with several codings is not supported"
    raise ApiError("unsupported_media_type", f"{problem}: {_WITHOUT}")


async def decompress(
    body: bytes, coding: str, room: BodyRoom, deadline: Deadline, client_bytes: int | None = None
) -> bytes:
    """Return the plain body. Both have their place in `room`, which the caller settles. Raises ApiError."""
    plain = bytearray()
    limit_s = min(BODY_TIME_S, deadline.left_s(committed=True))
    try:
        with deadline.limit(limit_s):
            for piece in _pieces(body, coding):
                size = len(plain) + len(piece)
                check_body_size(size, client_bytes)
                if size > max(_LITTLE_BYTES, len(body) * MOST_RATIO):
                    message = f"the compressed body expands more than {MOST_RATIO} times: send it uncompressed"
                    raise ApiError("request_too_large", message)
                await room.hold(len(body) + size, deadline)
                plain += piece
                await asyncio.sleep(0)  # a large body must not hold up the other requests
        return bytes(plain)
    except BadResponse:
        raise ApiError("invalid_request", f"the body is not valid {coding}, or is cut off: {_WITHOUT}") from None
    except TimeoutError:
        raise ApiError("request_timeout", f"the body was not decompressed within {limit_s:.3g} seconds") from None


def _pieces(body: bytes, coding: str) -> Iterator[bytes]:
    if coding == "zstd":
        yield from _zstd_pieces(body)
    elif (decoder := decoder_for(coding)) is not None:
        for start in range(0, len(body), _READ_BYTES):
            yield decoder.feed(body[start : start + _READ_BYTES], _PIECE_BYTES)
            while decoder.has_more:
                yield decoder.feed(b"", _PIECE_BYTES)
        decoder.finish()


def _zstd_pieces(body: bytes) -> Iterator[bytes]:
    import zstandard  # an extra, and only for requests that need it

    reader = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW_BYTES).stream_reader(body, read_across_frames=True)
    try:
        while piece := reader.read(_PIECE_BYTES):
            yield piece
    except zstandard.ZstdError:
        raise BadResponse("the body can't be decompressed") from None
