"""Labels in the first bytes of audio files: any cut gives the same file, and its audio is what it was."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.audio.tags import MOST_BYTES, PLACES, Tagger, tag_names
from providers.testkit.audio_files import _ogg_page, spoken_file

VALUE = json.dumps({"Label": "1", "ContentProducer": "生产者"}, ensure_ascii=False)
TAGS = [("AIGC", VALUE), ("ai-label", '{"ai_generated":true}')]


def tagged(form: str, data: bytes, size: int = 1 << 20) -> bytes:
    tagger = Tagger(form, TAGS)
    pieces = [tagger.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join([*pieces, tagger.feed(b"", at_end=True)])


@pytest.mark.parametrize("form", sorted(PLACES))
@given(size=st.integers(1, 300))
def test_tags_do_not_depend_on_the_cut(form: str, size: int) -> None:
    data = spoken_file(form, 0.3)
    assert tagged(form, data, size) == tagged(form, data)


@pytest.mark.parametrize("form", sorted(PLACES))
def test_tags_are_in_the_file_and_its_own_bytes_follow(form: str) -> None:
    data, found = spoken_file(form, 0.3), tagged(form, spoken_file(form, 0.3))
    assert VALUE.encode() in found
    assert found.endswith(data[-20:])
    assert len(found) > len(data)


def test_wav_has_a_chunk_after_its_form_and_right_sizes() -> None:
    found = tagged("wav", spoken_file("wav", 0.1))
    assert struct.unpack_from("<I", found, 4)[0] == len(found) - 8
    assert found[36:40] == b"AIGC"


def test_unknown_size_of_a_wav_stays() -> None:
    data = bytearray(spoken_file("wav", 0.1))
    data[4:8] = b"\xff\xff\xff\xff"
    assert tagged("wav", bytes(data))[4:8] == b"\xff\xff\xff\xff"


@pytest.mark.parametrize("version", [3, 4])
def test_own_tag_of_an_mp3_is_kept_and_extended(version: int) -> None:
    title = b"TIT2" + struct.pack(">I", 3) + b"\0\0" + b"\0ab"
    own = b"ID3" + bytes([version, 0, 0]) + bytes([0, 0, 0, len(title)]) + title
    found = tagged("mp3", own + spoken_file("mp3", 0.1))
    size = found[6] << 21 | found[7] << 14 | found[8] << 7 | found[9]
    assert found.endswith(title + spoken_file("mp3", 0.1))
    assert found[10 + size :] == spoken_file("mp3", 0.1)
    assert (b"\\u751f" in found) == (version == 3)
    assert (VALUE.encode() in found) == (version == 4)


ROOM = 255 * 255 - 1 - len(b"OpusTags") - 8 - sum(4 + len(f"AIGC={value}".encode()) for _, value in TAGS)


@pytest.mark.parametrize(
    ("packets", "is_written"),
    [
        ([b"OpusTags" + struct.pack("<I", ROOM) + bytes(ROOM + 4)], True),
        ([b"OpusTags" + struct.pack("<I", ROOM + 1) + bytes(ROOM + 5)], False),  # it would need a second page
        ([b"OpusTags" + bytes(8), b"a packet of sound"], False),
    ],
    ids=["full page", "fuller page", "page with another packet"],
)
def test_comments_of_opus_stay_on_their_own_page(packets: list[bytes], is_written: bool) -> None:
    whole = spoken_file("opus", 0.1)
    second, third = (whole.index(b"OggS", at) for at in (1, whole.index(b"OpusTags")))
    data = whole[:second] + _ogg_page(packets, 1, 0, 0) + whole[third:]
    found = tagged("opus", data)
    assert (found != data, found[:second], found[-len(whole[third:]) :]) == (is_written, whole[:second], whole[third:])


@pytest.mark.parametrize("form", [*sorted(PLACES), "aac", "pcm"])
@given(data=st.binary(max_size=200))
def test_any_bytes_pass_whole(form: str, data: bytes) -> None:
    assert tagged(form, data).endswith(data[-1:])


def test_file_without_a_place_is_passed_on_after_a_bound() -> None:
    tagger = Tagger("wav", TAGS)
    assert tagger.feed(b"R" * (MOST_BYTES - 1)) == b""
    assert tagger.feed(b"R") == b"R" * MOST_BYTES


def test_second_label_of_a_kind_has_its_name() -> None:
    labels = [{"name": "a", "AIGC": {}}, {"name": "b"}, {"name": "c"}]
    assert tag_names(labels) == ["AIGC", "ai-label", "ai-label:c"]
