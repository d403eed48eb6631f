"""Compressed bodies of requests: the same bytes as plain ones, within the same limits, and nothing left counted."""

import gzip
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from random import Random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import body as plain_body
from gateway.api import body_room
from gateway.api import compressed_body as module
from gateway.api.body import MAX_BODY_BYTES
from gateway.api.body_room import BodyLimits, BodyRoom
from gateway.api.compressed_body import coding_of, decompress
from gateway.api.errors import ApiError
from gateway.execution.deadline import Deadline
from gateway.model.caller import RequestHeaders

LONG_S = 1000.0
NOISE = Random(0).randbytes(2_000_000)  # does not shrink
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


def visitor(*values: bytes) -> RequestHeaders:
    headers = {b"content-encoding": values[0]} if values else {}
    repeated = {b"content-encoding": values} if len(values) > 1 else {}
    return RequestHeaders(headers, 0, "127.0.0.1", "", repeated)


async def plain(packed: bytes, coding: str, limits: BodyLimits | None = None, client_bytes: int | None = None) -> bytes:
    limits, deadline = limits or BodyLimits(), Deadline.start(LONG_S, LONG_S)
    room = BodyRoom(limits, "app", len(packed) + MAX_BODY_BYTES)
    try:
        await room.hold(len(packed), deadline)
        body = await decompress(packed, coding, room, deadline, client_bytes)
        assert limits._held_bytes >= len(body)
        return body
    finally:
        room.release()


async def refusal(packed: bytes, coding: str, **given: object) -> tuple[int, str]:
    with pytest.raises(ApiError) as raised:
        await plain(packed, coding, **given)  # type: ignore[arg-type]
    return raised.value.status, raised.value.message


@pytest.mark.parametrize("coding", PACK)
@given(parts=st.lists(st.tuples(st.binary(max_size=40), st.integers(1, 300)), max_size=6))
async def test_body_is_the_one_that_was_compressed(coding: str, parts: list[tuple[bytes, int]]) -> None:
    body = b"".join(piece * times for piece, times in parts)
    assert await plain(PACK[coding](body), coding) == body


@pytest.mark.parametrize("coding", PACK)
async def test_limits_hold_after_decompression(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "ROOM_TIME_S", 0.0)
    packed = PACK[coding](NOISE)
    assert await plain(packed, coding) == NOISE
    assert "limit of this client, 100000 bytes" in (await refusal(packed, coding, client_bytes=100_000))[1]
    assert (await refusal(packed, coding, limits=BodyLimits(len(packed) + MAX_BODY_BYTES)))[0] == 503
    # A body of the real size takes seconds to compress. The limit stands in one place.
    monkeypatch.setattr(plain_body, "MAX_BODY_BYTES", 3_000_000)
    assert await plain(packed, coding) == NOISE
    assert (await refusal(PACK[coding](NOISE * 2), coding))[0] == 413


@pytest.mark.parametrize("coding", PACK)
async def test_little_that_expands_to_much_is_refused(coding: str) -> None:
    small = b" " * module._LITTLE_BYTES
    assert await plain(PACK[coding](small), coding) == small
    assert (await refusal(PACK[coding](b" " * MAX_BODY_BYTES), coding)) == (
        413,
        "the compressed body expands more than 200 times: send it uncompressed",
    )


@pytest.mark.parametrize("coding", PACK)
async def test_bytes_of_another_form_are_named(coding: str) -> None:
    status, message = await refusal(b'{"model": "assistant"}', coding)
    assert status == 400
    assert message.startswith(f"the body is not valid {coding}, or is cut off: send the body with")


async def test_body_that_was_cut_off_is_refused() -> None:
    assert (await refusal(gzip.compress(b"{}" * 100)[:-9], "gzip"))[0] == 400


async def test_window_of_zstd_is_bounded() -> None:
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    ).compressobj()
    packed = wide.compress(b"{}" * 100) + wide.flush()
    assert (await refusal(packed, "zstd"))[0] == 400


async def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_TIME_S", 0.0)
    assert (await refusal(gzip.compress(NOISE), "gzip"))[0] == 408


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ((), None),
        ((b"",), None),
        ((b"Identity",), None),
        ((b"GZIP",), "gzip"),
        ((b"identity, zstd",), "zstd"),
        ((b"identity", b"deflate"), "deflate"),
    ],
)
def test_coding_is_read(values: tuple[bytes, ...], coding: str | None) -> None:
    assert coding_of(visitor(*values)) == coding


@pytest.mark.parametrize("values", [(b"br",), (b"gzip, gzip",), (b"gzip", b"zstd"), (b"compress",), (b"\xff" * 500,)])
def test_other_codings_are_refused_with_what_to_send(values: tuple[bytes, ...]) -> None:
    with pytest.raises(ApiError, match="`content-encoding: gzip`, or without") as raised:
        coding_of(visitor(*values))
    assert raised.value.status == 415
    assert len(raised.value.message) < 300


def test_zstd_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_spec("zstandard") is not None
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ApiError, match=r"its extra `zstd`"):
        coding_of(visitor(b"zstd"))
