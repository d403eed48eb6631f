"""Labels in the first bytes of audio files: any cut gives the same file, and its audio is what it was."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.failures import ProviderFailed
from providers.inputs.audio.tags import MOST_BYTES, PLACES, Tagger, tag_names
from providers.testkit.simulated_audio import _ogg_page, spoken_file

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


def flac(*blocks: tuple[int, bytes]) -> bytes:
    """Return a file with these blocks after its first one."""
    first = spoken_file("flac", 0.1)[8:42]
    found = [(0, first), *blocks]
    written = [bytes([kind | (128 if at == len(found) - 1 else 0)]) + len(data).to_bytes(3, "big") + data for at, (kind, data) in enumerate(found)]  # fmt: skip
    return b"fLaC" + b"".join(written) + b"\xff\xf8the audio"


def blocks_of(file: bytes) -> list[tuple[int, bytes]]:
    at, found, kind = 4, [], 0
    while not kind & 128:
        kind, size = file[at], int.from_bytes(file[at + 1 : at + 4], "big")
        found.append((kind & 127, file[at + 4 : at + 4 + size]))
        at += 4 + size
    assert file[at:] == b"\xff\xf8the audio"
    return found


OWN = b"".join(struct.pack("<I", len(one)) + one for one in (f"AIGC={value}".encode() for _, value in TAGS))
VENDOR = struct.pack("<I", 3) + b"abc" + struct.pack("<I", 1) + struct.pack("<I", 70_000) + b"x=" + bytes(69_998)
PICTURE = (6, bytes(80_000))


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ((), [(4, bytes(4) + struct.pack("<I", 2) + OWN)]),
        ((PICTURE, (1, b"")), [PICTURE, (1, b""), (4, bytes(4) + struct.pack("<I", 2) + OWN)]),
        (((4, VENDOR), PICTURE), [(4, VENDOR[:7] + struct.pack("<I", 3) + OWN + VENDOR[11:]), PICTURE]),
        ((PICTURE, (4, VENDOR)), [PICTURE, (4, VENDOR[:7] + struct.pack("<I", 3) + OWN + VENDOR[11:])]),
    ],
    ids=["no comments", "no comments, a picture", "long comments", "comments after a picture"],
)
@pytest.mark.parametrize("size", [7, 50_000, 1 << 20])
def test_flac_has_a_place_whatever_its_blocks_are(blocks: tuple[tuple[int, bytes], ...], expected: list, size: int) -> None:  # fmt: skip
    found = blocks_of(tagged("flac", flac(*blocks), size))
    assert found[1:] == expected
    tagger = Tagger("flac", TAGS)
    assert tagger.feed(flac(*blocks)[:60]), "it waits for nothing"
    assert tagger.has_written


@pytest.mark.parametrize("block", [bytes(7), b"\xff" * 8, bytes((1 << 24) - len(OWN))])
def test_flac_whose_comments_have_no_room_breaks_off(block: bytes) -> None:
    with pytest.raises(ProviderFailed) as caught:
        tagged("flac", flac((4, block)))
    assert "no room" in caught.value.failure.detail


def test_flac_that_ends_before_its_audio_is_no_whole_file() -> None:
    with pytest.raises(ProviderFailed) as caught:
        tagged("flac", flac(PICTURE)[:5000])
    assert "before its audio" in caught.value.failure.detail
