"""Invalid YAML is reported with position, error and fix; plain values follow YAML 1.2."""

import re
import time
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config import yaml_document
from gateway.config.problems import ConfigRejected
from gateway.config.source_text import MAX_BYTES
from gateway.config.yaml_document import parse_yaml
from tests.kit.config_cases import marked

AS_UTF_8 = "save the file as UTF-8"
BROKEN = {
    name: (text, message)
    for name, text, message in re.findall(
        r"^## ([^\n]*)\n(.*?)^=> ([^\n]*)\n",
        Path(__file__).with_name("broken_yaml.txt").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
} | {
    "empty": ("▸", "the file is empty; `gateway init` writes one to start from"),
    "open bracket": (
        "a: {b: 1\n▸",
        "not valid YAML (the incomplete part begins at line 1); "
        "check the indentation, brackets and commas here and just above",
    ),
    "control character": ("a: b▸\x07\n", "the character U+0007 is not allowed; remove it"),
    "other line break": ("# a▸\u2028b: 1\n", "the character U+2028 is not allowed; remove it"),
    "depth": ("a: " + "[" * 63 + "▸[\n", "more than 64 levels deep"),
}
"""The text and the message of each mistake, with a mark before its position. The file has those of visible characters."""


@pytest.fixture(params=[yaml_document._PARSER, yaml.SafeLoader], ids=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_document, "_PARSER", request.param)


def problems(data: bytes) -> list[str]:
    try:
        return [str(problem) for problem in parse_yaml(data, "f.yaml").problems]
    except ConfigRejected as rejection:
        return [str(problem) for problem in rejection.problems]


@pytest.mark.parametrize("case", BROKEN)
def test_syntax_error_is_reported_at_its_position(case: str) -> None:
    text, [(line, column)] = marked(BROKEN[case][0])
    assert problems(text.encode()) == [f"f.yaml:{line}:{column}: {BROKEN[case][1]}"]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("case", ["tab", "group", "star", "duplicate", "merge", "two documents", "depth", "tag"])
def test_either_parser_finds_the_same(case: str) -> None:
    text, [(line, column)] = marked(BROKEN[case][0])
    assert problems(text.encode()) == [f"f.yaml:{line}:{column}: {BROKEN[case][1]}"]


_LATIN = f"byte 0xE9 is not UTF-8 (another encoding, such as Latin-1?); {AS_UTF_8}"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a: 1".encode("utf-16"), f"f.yaml:1:1: the file is in UTF-16; {AS_UTF_8}"),
        (b"\xfe\xff\0a", f"f.yaml:1:1: the file is in UTF-16; {AS_UTF_8}"),
        ("a: 1".encode("utf-32"), f"f.yaml:1:1: the file is in UTF-32; {AS_UTF_8}"),
        (b"\0\0\xfe\xff\0\0\0a", f"f.yaml:1:1: the file is in UTF-32; {AS_UTF_8}"),
        ("a: 1".encode("utf-16-le"), f"f.yaml:1:2: the character U+0000 is not allowed; {AS_UTF_8} (is it UTF-16?)"),
        ("a: 1\nb: é".encode("latin-1"), f"f.yaml:2:4: {_LATIN}"),
        (b"\xef\xbb\xbfa: \xc3\xa9\xe9", f"f.yaml:1:5: {_LATIN}"),
        (b"#" * (MAX_BYTES + 1), "f.yaml: the file is larger than 4 MiB"),
    ],
)
def test_another_encoding_is_named(data: bytes, expected: str) -> None:
    assert problems(data) == [expected]


def test_a_byte_order_mark_of_utf_8_is_accepted() -> None:
    assert parse_yaml(b"\xef\xbb\xbfa: 1", "f").values == {"a": 1}


@pytest.mark.usefixtures("parser")
def test_scalars_are_those_of_yaml_1_2() -> None:
    text = """
    country: NO
    switch: [on, off, yes, no, y, n, Yes]
    bool: [true, True, FALSE]
    none: [null, ~, Null, ]
    time: [12:30:00, 2027-03-01, 1:20]
    int: [5, -5, +5, 017, 0o17, 0x1F]
    not int: [1_000, 0b1, "5", '5', !!str 5, ! 5, 5s]
    float: [1.5, 1e3, .5, -.inf, .INF]
    asked: [!!int 7, !!float 7, !!null ~, !!bool true, !!seq [1], !!map {a: 1}]
    """
    assert parse_yaml(text.encode(), "f").values == {
        "country": "NO",
        "switch": ["on", "off", "yes", "no", "y", "n", "Yes"],
        "bool": [True, True, False],
        "none": [None, None, None],
        "time": ["12:30:00", "2027-03-01", "1:20"],
        "int": [5, -5, 5, 17, 15, 31],
        "not int": ["1_000", "0b1", "5", "5", "5", "5", "5s"],
        "float": [1.5, 1000.0, 0.5, float("-inf"), float("inf")],
        "asked": [7, 7, None, True, [1], {"a": 1}],
    }


def test_key_errors_are_collected() -> None:
    found = problems(b"a: 1\na: 2\n3: 4\nb: !x y\nc: [")
    assert [line.split(": ")[0] for line in found] == ["f.yaml:2:1", "f.yaml:3:1", "f.yaml:4:4", "f.yaml:6:1"]


def test_positions_of_values_and_keys() -> None:
    source = parse_yaml(b"a: &x {b: 1, d: {e: 2}}\nc: *x\nf: [*x,\n  g]\n", "f")
    assert source.position(("a", "b")) == (1, 11)
    assert source.position(("a", "b"), key=True) == (1, 8)
    assert source.position(("a", "d")) == (1, 14)  # a collection is pointed at by its key
    assert source.position(("c", "b")) == (1, 11)  # what an alias repeats stands where it is written
    assert source.position(("c",)) == (2, 1)
    assert source.position(("f", 0)) == (3, 5)
    assert source.position(("f", 1)) == (4, 3)
    assert source.position(("f", 7)) == source.position(("f",)) == (3, 1)  # the way that exists
    assert source.position(("a", "nothing", "there")) == (1, 1)
    assert (source.has(("f", 1)), source.has(("f", 2)), source.has(("c", "d", "e"))) == (True, False, True)


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(30), "f.yaml:6:15: more than 300,000 values, counting what aliases repeat; repeat less with `*`"),
        ("[" * 100_000, "f.yaml:1:65: more than 64 levels deep"),
        ("- " * 100_000, "f.yaml:1:129: more than 64 levels deep"),
        ("{a: " * 50_000, "f.yaml:1:257: more than 64 levels deep"),
        (
            "\n".join([f"b{n}: &b{n} [{'[' * 9}{f'*b{n - 1}' if n else 'x'}{']' * 10}" for n in range(9)]),
            "f.yaml:7:19: with this alias, more than 64 levels deep",
        ),
    ],
    ids=["lists", "brackets", "dashes", "braces", "deep aliases"],
)
def test_alias_bomb_is_rejected_at_the_limit(text: str, message: str) -> None:
    [found] = problems(text.encode())
    assert message in found


@pytest.mark.slow
def test_a_long_list_is_rejected_at_the_limit() -> None:
    [found] = problems(f"a: [{'x,' * 300_000}]".encode())
    assert "more than 300,000 values" in found


def test_an_anchor_bomb_takes_less_than_a_second_and_little_memory() -> None:
    text = bomb(1000).encode()
    began = time.process_time()
    problems(text)
    assert time.process_time() - began < 1
    tracemalloc.start()
    problems(text)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 16 * 1024 * 1024


@pytest.mark.parametrize(("levels", "sound"), [(62, True), (63, False)])
def test_an_alias_is_as_deep_as_what_it_repeats(levels: int, sound: bool) -> None:
    nested = f"a: &a {'[' * levels}{']' * levels}"
    assert problems(f"{nested}\nb: [*a]".encode()) == (
        [] if sound else ["f.yaml:2:5: with this alias, more than 64 levels deep"]
    )


def test_aliases_within_the_bounds_are_fine() -> None:
    values = parse_yaml(bomb(4).encode(), "f").values
    assert values["a3"] == [[[["x"] * 10] * 10] * 10] * 10


@given(st.binary(max_size=200) | st.text("ab:-?&*!|>'\"%@`#{}[], \n\t0.", max_size=60).map(str.encode))
@example(b"")
def test_any_bytes_give_values_or_problems(data: bytes) -> None:
    try:
        found = parse_yaml(data, "f").values
    except ConfigRejected as rejection:
        found = {str(problem): problem for problem in rejection.problems} or None
    assert isinstance(found, dict)
