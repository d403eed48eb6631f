"""Forms with audio files: what is read, what is refused, and what leaves."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.failures import InvalidRequest, UnsupportedFeature
from providers.inputs.audio.decode import decode_speech, decode_transcription
from providers.inputs.audio.form import (
    MOST_HEADER_BYTES,
    MOST_HEADERS,
    MOST_PARTS,
    MOST_TEXT_BYTES,
    MOST_TEXTS_BYTES,
    FormReader,
    boundary_of,
    parse_form,
    text_of_part,
    written_form,
)
from tests.kit.audio import BOUNDARY, form_of, silent_wav, transcription_form
from tests.kit.case_files import cases
from tests.kit.example_counts import examples

WAV = silent_wav(0.01)


def read(body: bytes) -> list[tuple[str, bytes, bool]]:
    return [(part.name, bytes(part.data), part.is_file) for part in parse_form(body, BOUNDARY)]


def refused(body: bytes) -> str | None:
    """Return the field that the refusal of a form names."""
    with pytest.raises(InvalidRequest) as error:
        decode_transcription(parse_form(body, BOUNDARY))
    return error.value.param


def test_file_may_stand_before_the_model_and_is_not_copied() -> None:
    body = bytearray(transcription_form(WAV, language="en-US"))
    request = decode_transcription(parse_form(body, BOUNDARY))
    assert (request.model, request.kind, request.language, bytes(request.file)) == ("assistant", "wav", "en", WAV)
    assert request.file.obj is body


@pytest.mark.parametrize(
    "content",
    [
        *(f"--{BOUNDARY}", f"\r\n-{BOUNDARY}--", f"--{BOUNDARY}--", "\r\n--", "\n--a-boundary\n"),
        *(f"\r\n--{BOUNDARY}{rest}" for rest in ("x", "-", "--x", " x", "\n", "\r")),
    ],
)
def test_text_of_the_boundary_inside_a_file_is_a_part_of_the_file(content: str) -> None:
    data = WAV + content.encode() + b"tail"
    assert read(form_of([("file", data, "x"), ("model", b"m", None)])) == [("file", data, True), ("model", b"m", False)]


def test_padding_after_a_delimiter_is_a_part_of_it() -> None:
    body = form_of([("file", WAV, "x"), ("model", b"m", None)])
    padded = body.replace(BOUNDARY.encode() + b"\r\n", BOUNDARY.encode() + b" \t\r\n") + b"an epilogue"
    assert read(padded) == read(body)


def test_file_full_of_lines_that_begin_like_a_delimiter_costs_no_call_for_each() -> None:
    body = form_of([("file", WAV + f"\r\n--{BOUNDARY}x".encode() * 50_000, "x"), ("model", b"m", None)])
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        parts = parse_form(body, BOUNDARY)
    finally:
        sys.setprofile(None)
    assert (len(parts), calls < 500) == (2, True), calls


@given(st.binary(max_size=200), st.integers(0, 400))
def test_form_that_is_cut_anywhere_is_refused_or_the_same(content: bytes, at: int) -> None:
    body = form_of([("file", b"RIFF" + content.replace(b"--", b""), "x"), ("model", b"m", None)])
    whole = read(body)
    try:
        assert read(body[:at]) == whole
        assert at >= len(body) - 2
    except InvalidRequest:
        assert at < len(body)


@pytest.mark.slow("cuts a form at every byte")
def test_form_that_is_cut_at_every_byte_is_refused_or_the_same() -> None:
    body = transcription_form(WAV + b"\r\n--a-boundaryx", prompt="hello")
    whole = read(body)
    for at in range(len(body)):
        try:
            assert read(body[:at]) == whole
            assert at >= len(body) - 2
        except InvalidRequest:
            continue


@given(st.binary(max_size=300))
def test_any_bytes_are_a_form_or_refused(body: bytes) -> None:
    for one in (body, f"--{BOUNDARY}\r\n".encode() + body + f"\r\n--{BOUNDARY}--\r\n".encode()):
        try:
            parse_form(one, BOUNDARY)
        except InvalidRequest:
            continue


def _with_headers(count: int, size: int = 1) -> bytes:
    more = "".join(f"\r\nx-{number}: {'v' * size}" for number in range(count - 1))
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="a"{more}\r\n\r\n'
    return head.encode() + f"t\r\n--{BOUNDARY}--\r\n".encode()


_HEADER_REST = len('content-dispositionform-data; name="a"') + len("x-0")


@pytest.mark.parametrize(
    ("most", "more"),
    [
        (form_of([("a", b"", None)] * MOST_PARTS), form_of([("a", b"", None)] * (MOST_PARTS + 1))),
        (_with_headers(MOST_HEADERS), _with_headers(MOST_HEADERS + 1)),
        (_with_headers(2, MOST_HEADER_BYTES - _HEADER_REST), _with_headers(2, MOST_HEADER_BYTES - _HEADER_REST + 1)),
        (form_of([("a", b"t" * MOST_TEXT_BYTES, None)]), form_of([("a", b"t" * (MOST_TEXT_BYTES + 1), None)])),
        (
            form_of([("a", b"t" * MOST_TEXT_BYTES, None)] * (MOST_TEXTS_BYTES // MOST_TEXT_BYTES)),
            form_of(
                [("a", b"t" * MOST_TEXT_BYTES, None)] * (MOST_TEXTS_BYTES // MOST_TEXT_BYTES) + [("b", b"t", None)]
            ),
        ),
    ],
    ids=["parts", "headers", "header_bytes", "text_bytes", "texts_bytes"],
)
def test_bound_of_a_form_is_exact(most: bytes, more: bytes) -> None:
    assert parse_form(most, BOUNDARY)
    with pytest.raises(InvalidRequest):
        parse_form(more, BOUNDARY)


@cases("content_type", "boundary")
def test_content_type_has_one_boundary(content_type: str, boundary: str | None) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([("model", b"m", None)], "file"),
        ([("file", b"", "x"), ("model", b"m", None)], "file"),
        ([("file", WAV, None), ("model", b"m", None)], "file"),
        ([("file", WAV, "x"), ("file", WAV, "x"), ("model", b"m", None)], "file"),
        ([("file", b"MZ no audio", "x.wav"), ("model", b"m", None)], "file"),
        ([("file", WAV, "x")], "model"),
        ([("file", WAV, "x"), ("model", b" ", None)], "model"),
        ([("file", WAV, "x"), ("model", b"m", None), ("model", b"m", None)], "model"),
        ([("file", WAV, "x"), ("model", b"m", None), ("other", WAV, "y")], "other"),
        ([("file", WAV, "x"), ("model", b"m", None), ("prompt", b"\xff", None)], "prompt"),
    ],
)
def test_form_without_one_file_and_one_model_is_refused_by_name(
    parts: list[tuple[str, bytes, str | None]], param: str
) -> None:
    assert refused(form_of(parts)) == param


@cases("fields", "param")
def test_wrong_field_is_refused_by_name(fields: dict[str, str], param: str) -> None:
    assert refused(transcription_form(WAV, **fields)) == param


@pytest.mark.parametrize("name", ["url", "file_url", "file_id", "input_audio", "known_speaker_names[]"])
def test_field_by_which_a_provider_would_fetch_or_identify_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedFeature) as error:
        decode_transcription(parse_form(transcription_form(WAV, **{name: "x"}), BOUNDARY))
    assert error.value.param == name.removesuffix("[]")


def test_new_form_has_the_fields_and_then_the_file() -> None:
    fields = [("model", "m"), ("prompt", "a\r\nb")]
    kind, head, rest = written_form(fields, memoryview(WAV), "audio.wav", "audio/wav", "0123456789abcdef")
    found = boundary_of(kind)
    assert found is not None
    parts = parse_form(head + b"".join(rest), found)
    assert [(part.name, text_of_part(part)) for part in parts[:-1]] == fields
    assert (parts[-1].name, bytes(parts[-1].data)) == ("file", WAV)


@cases("body", "param")
def test_wrong_request_for_speech_is_refused_by_name(body: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        decode_speech(body)
    assert error.value.param == param


_PARTS = st.lists(
    st.sampled_from(
        [
            ("file", WAV, "x"),
            ("file", WAV + b"\r\n--a-boundary", "x"),
            ("model", b"assistant", None),
            ("prompt", b"\r\n", None),
            ("language", b"de", None),
            ("keywords[]", b"word", None),
            ("", b"", None),
        ]
    ),
    max_size=6,
)


def in_pieces(body: bytes, piece_bytes: int) -> list[tuple[str, bytes, bool]] | None:
    """Return the parts of a form that is parsed in pieces of this size, or None if it is refused."""
    form = FormReader(body, BOUNDARY)
    try:
        for _ in form.steps(piece_bytes):
            pass
    except InvalidRequest:
        return None
    return [(part.name, bytes(part.data), part.is_file) for part in form.parts]


_MANGLED = st.tuples(_PARTS, st.binary(max_size=4), st.integers(0, 2_000), st.integers(0, 2_000))


def mangled(drawn: tuple[list[tuple[str, bytes, str | None]], bytes, int, int]) -> bytes:
    parts, other, start, end = drawn
    body = form_of(parts)
    return body[: min(start, len(body))] + other + body[min(end, len(body)) :]


@settings(max_examples=examples(500))
@given(_MANGLED, st.integers(1, 100))
def test_mangled_form_is_one_result_or_refused(
    drawn: tuple[list[tuple[str, bytes, str | None]], bytes, int, int], piece_bytes: int
) -> None:
    body = mangled(drawn)
    whole = in_pieces(body, len(body) + 1)
    assert in_pieces(body, piece_bytes) == whole
    if whole is not None:
        assert all(data in body for _, data, _ in whole)
        try:
            request = decode_transcription(parse_form(body, BOUNDARY))
        except (InvalidRequest, UnsupportedFeature):
            return
        assert bytes(request.file) in body


@pytest.mark.slow("parses each form in pieces of every size: 10,000 forms in make prove")
@settings(max_examples=examples(500))
@given(_MANGLED)
def test_form_in_pieces_of_every_size_is_the_same(
    drawn: tuple[list[tuple[str, bytes, str | None]], bytes, int, int],
) -> None:
    body = mangled(drawn)
    whole = in_pieces(body, len(body) + 1)
    assert all(in_pieces(body, piece_bytes) == whole for piece_bytes in range(1, len(body) + 1))
