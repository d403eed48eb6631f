"""Decompress a body as it arrives, in pieces of bounded size: a small compressed piece can expand to a large one."""

from __future__ import annotations

import zlib

from providers.transport.errors import BadResponse

_MOST_MEMBERS = 1000
"""The limit of consecutive compressed members in a body (RFC 1952, section 2.2). Empty members cost time."""

_KNOWN = frozenset("br compress deflate gzip identity zstd".split())
_LONGEST = 40


class Decoder:
    """An incremental decoder of gzip or deflate (RFC 9110, section 8.4.1)."""

    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._inflate = zlib.decompressobj(window_bits)
        self._packed = b""
        self._begun = False
        self._is_full = False
        self._members = 1

    @property
    def has_more(self) -> bool:
        """Whether there is more to decompress of the data that was fed."""
        return self._is_full or bool(self._packed)

    def feed(self, data: bytes, at_most: int) -> bytes:
        """Return the next decompressed bytes, at most this number. If `has_more`, the next call returns more of them.

        Raises BadResponse for invalid data.
        """
        data = self._packed + data if self._packed else data
        out = b""
        try:
            while (data or self._is_full) and len(out) < at_most:
                piece = self._inflate.decompress(data, at_most - len(out))
                out = out + piece if out else piece
                self._begun = True
                # The state of zlib may hold more, although it has taken all data.
                self._is_full = len(out) == at_most and not self._inflate.eof
                data = self._inflate.unconsumed_tail
                if self._inflate.eof and (data := self._inflate.unused_data):
                    self._inflate = zlib.decompressobj(self._window_bits)
                    self._members += 1
                    if self._members > _MOST_MEMBERS:
                        raise BadResponse(f"the body is compressed in more than {_MOST_MEMBERS} parts")
        except zlib.error:
            raise BadResponse("the body can't be decompressed") from None
        self._packed = data
        return out

    def finish(self) -> None:
        """Raise BadResponse if the compressed body was cut off."""
        if self._begun and not self._inflate.eof:
            raise BadResponse("the compressed body was cut off")


def decoder_for(encoding: str) -> Decoder | None:
    """Return the decoder of a `content-encoding`, or None for an uncompressed body. Raises BadResponse for others.

    The gateway never requests compression, but some servers send it.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return Decoder(16 + zlib.MAX_WBITS)
        case "deflate":
            return Decoder(zlib.MAX_WBITS)
        case other:
            # An unknown name is not shown: it may be anything, such as the key of the request.
            names = [name.strip() for name in other[:_LONGEST].split(",")]
            shown = f" ({', '.join(names)})" if _KNOWN.issuperset(names) else ""
            raise BadResponse(f"the body has a content-encoding that was not requested{shown}")
