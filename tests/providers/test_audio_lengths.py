"""Kinds of audio files by their first bytes, and their lengths, which no header decides alone."""

import struct
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.failures import ProviderFailed
from providers.inputs.audio.kinds import _MOST_CHANNELS, _MOST_RATE, KINDS, Kind, kind_of, lengths_of
from providers.inputs.audio.reading import _MOST_MS, milliseconds, read_transcript
from providers.testkit.simulated_audio import spoken_file
from tests.kit.audio import claiming_wav, silent_wav

HEADS = {
    "wav": b"RIFF\0\0\0\0WAVEfmt ",
    "flac": b"fLaC",
    "ogg": b"OggS",
    "webm": b"\x1aE\xdf\xa3",
    "mp4": b"\0\0\0\x20ftypM4A ",
    "amr": b"#!AMR\n",
    "mp3": b"ID3\x04",
    "aac": b"\xff\xf1\x50\x80",
}


@pytest.mark.parametrize("kind", KINDS)
def test_first_bytes_name_the_kind(kind: str) -> None:
    assert kind_of(HEADS[kind] + bytes(100)) == kind


def test_names_of_kinds_are_those_of_their_type() -> None:
    assert get_args(Kind) == tuple(KINDS)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xfb\x90\xc4", "mp3"),
        (b"\xff\xf3\x84\xc4", "mp3"),
        (b"\xff\xeb\x90\xc4", None),  # a version that does not exist
        (b"\xff\xfb\xf0\xc4", None),  # a rate that does not exist
        (b"RIFF\0\0\0\0AVI ", None),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_frame_without_a_tag_is_read_and_other_files_are_none(head: bytes, kind: str | None) -> None:
    assert kind_of(head) == kind


@given(st.binary(max_size=300))
def test_any_bytes_have_a_length_that_is_bounded_by_their_number(data: bytes) -> None:
    for kind in KINDS:
        lengths = lengths_of(kind, HEADS[kind] + data)
        assert 0 <= lengths.usual <= lengths.most
        assert 0 <= lengths.own <= lengths.most


@pytest.mark.parametrize("claimed", [0, 32_000, 2**32 - 1, 2**63])
def test_length_of_pcm_is_that_of_its_real_bytes(claimed: int) -> None:
    lengths = lengths_of("wav", claiming_wav(claimed))
    assert (lengths.most, lengths.usual, lengths.own) == (1000, 1000, 1000)


def wav(channels: int = 1, rate: int = 16_000, bits: int = 16, tag: int = 1) -> bytes:
    form = struct.pack("<IHHIIHH", 16, tag, channels, rate, 1, 1, bits)
    return b"RIFF\0\0\0\0WAVEfmt " + form + b"data\0\0\0\0" + bytes(32_000)


@pytest.mark.parametrize(
    ("file", "most"),
    [
        (wav(), 1000),
        (wav(channels=_MOST_CHANNELS), 125),
        (wav(channels=_MOST_CHANNELS + 1), 64_088),
        (wav(channels=0), 64_088),
        (wav(rate=8_000), 2000),
        (wav(rate=7_999), 64_088),
        (wav(rate=192_000), 84),
        (wav(rate=192_001), 64_088),
        (wav(bits=12), 64_088),
        (wav(tag=0x55), 64_088),
    ],
)
def test_only_sane_pcm_counts_by_its_header(file: bytes, most: int) -> None:
    assert lengths_of("wav", file).most == most


def flac(samples: int, size: int = 48_000) -> bytes:
    packed = 48_000 << 44 | 15 << 36 | samples
    return (b"fLaC\x80\0\0\x22" + bytes(10) + packed.to_bytes(8, "big") + bytes(16)).ljust(size, b"\0")


@pytest.mark.parametrize(
    ("samples", "own"),
    [
        (48_000 * 10, 10_000),
        (48_000 * _MOST_RATE // _MOST_RATE, 1000),  # 48,000 bytes a second
        (48_000 - 96, 96_000),  # more than that: the claim is not true
        (2**36 - 1, 96_000),
        (0, 96_000),
    ],
)
def test_claim_counts_only_between_what_bytes_can_hold(samples: int, own: int) -> None:
    assert lengths_of("flac", flac(samples)).own == own


def test_longest_file_of_a_vendor_bounds_the_length() -> None:
    assert lengths_of("ogg", b"OggS" + bytes(10_000_000), 300).most == 300_000


@pytest.mark.parametrize("form", ["mp3", "wav"])
def test_files_claim_about_their_length(form: str) -> None:
    data = spoken_file(form, 3)
    kind = kind_of(data)
    assert kind is not None
    assert 2_900 <= lengths_of(kind, data).usual <= 3_100


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        (1.5, 1500),
        ("2", 2000),
        (0, 0),
        (-1, 0),
        (float("nan"), 0),
        (float("inf"), 0),
        (True, 0),
        (None, 0),
        ("long", 0),
        ((_MOST_MS - 1) / 1000, _MOST_MS - 1),
        (_MOST_MS / 1000, 0),
    ],
)
def test_count_of_seconds_is_a_length_or_absent(seconds: object, found: int) -> None:
    assert milliseconds(seconds) == found


def test_guesses_about_who_speaks_are_left_out() -> None:
    text = "<|en|><|HAPPY|><|Speech|>Hello\N{SMILING FACE WITH SMILING EYES}"
    transcript = read_transcript(
        {"text": text, "emotion": "happy", "segments": [{"text": text, "gender": "f", "start": 0}]}
    )
    assert transcript.text == "Hello"
    assert transcript.segments == ({"text": "Hello", "start": 0},)


@given(
    st.dictionaries(
        st.sampled_from(["text", "duration", "segments", "words", "usage"]), st.none() | st.text() | st.integers()
    )
)
def test_any_object_is_a_transcript_or_malformed(body: dict[str, object]) -> None:
    try:
        assert isinstance(read_transcript(body).text, str)
    except ProviderFailed:
        assert not isinstance(body.get("text"), str)


def test_silence_is_an_answer() -> None:
    assert read_transcript({"text": ""}).text == ""
    assert lengths_of("wav", silent_wav(0.5)).own == 500
