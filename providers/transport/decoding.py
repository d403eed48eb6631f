"""Decompress a body as it arrives, within bounds: a small compressed piece can stand for a very large one."""

from __future__ import annotations

import zlib

from providers.transport.errors import BadResponse, TooLarge

__all__ = ["Decoder", "decoder_for"]

_PIECE_BYTES = 1024 * 1024
_MOST_MEMBERS = 1000
"""A body may be several compressed ones in a row (RFC 1952, section 2.2). Empty ones cost time and come to nothing."""

_KNOWN = frozenset("br compress deflate gzip identity zstd".split())
_LONGEST = 40


class Decoder:
    """gzip or deflate (RFC 9110, section 8.4.1), incrementally."""

    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._inflate = zlib.decompressobj(window_bits)
        self._begun = False
        self._members = 1

    def feed(self, data: bytes, at_most: int) -> bytes:
        """What these bytes decompress to; raises BadResponse for garbage, TooLarge beyond `at_most` bytes."""
        out = bytearray()
        try:
            while data:
                out += self._inflate.decompress(data, min(_PIECE_BYTES, at_most + 1 - len(out)))
                self._begun = True
                if len(out) > at_most:
                    raise TooLarge(f"the body decompresses to more than {at_most} bytes")
                data = self._inflate.unconsumed_tail
                if self._inflate.eof and (data := self._inflate.unused_data):
                    self._inflate = zlib.decompressobj(self._window_bits)
                    self._members += 1
                    if self._members > _MOST_MEMBERS:
                        raise BadResponse(f"the body is compressed in more than {_MOST_MEMBERS} parts")
        except zlib.error:
            raise BadResponse("the body can't be decompressed") from None
        return bytes(out)

    def finish(self) -> None:
        """Raise BadResponse if the compressed body was cut off."""
        if self._begun and not self._inflate.eof:
            raise BadResponse("the compressed body was cut off")


def decoder_for(encoding: str) -> Decoder | None:
    """The decoder of a `content-encoding`, None for an uncompressed body; raises BadResponse for others.

    We never ask for compression; some servers send it all the same.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return Decoder(16 + zlib.MAX_WBITS)
        case "deflate":
            return Decoder(zlib.MAX_WBITS)
        case other:
            # What is no name of a way is not told: it may be anything, such as our key.
            names = [name.strip() for name in other[:_LONGEST].split(",")]
            way = f" ({', '.join(names)})" if _KNOWN.issuperset(names) else ""
            raise BadResponse(f"the body is compressed in a way that nobody asked for{way}")
