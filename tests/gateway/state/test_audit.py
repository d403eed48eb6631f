"""The audit trail: every change of a line is detected, and so is a truncated end."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.operator_errors import StateError
from gateway.state import audit as audit_module
from gateway.state.audit import Audit, key_hashes, verify_trail
from gateway.state.history import BEGINNING, TrailHead
from tests.kit.case_files import cases

AT = datetime(2026, 11, 20, tzinfo=UTC)
Lines = list[bytes]


def written(directory: Path, count: int = 5) -> TrailHead:
    audit = Audit(directory, BEGINNING)
    for number in range(1, count + 1):
        audit.append("activated", AT, {"config_version": f"t{number}", "who": "Åsa 管理员"})
    audit.close()
    return audit.head


def lines_of(directory: Path) -> Lines:
    return (directory / "audit.jsonl").read_bytes().splitlines(keepends=True)


def test_unchanged_trail_is_valid(tmp_path: Path) -> None:
    head = written(tmp_path)
    verdict = verify_trail(tmp_path, {"history.db": head})
    assert (verdict.lines, verdict.head, verdict.faults) == (5, head, ())
    assert [json.loads(line)["number"] for line in lines_of(tmp_path)] == [1, 2, 3, 4, 5]


def changed(lines: Lines) -> Lines:
    return [*lines[:2], lines[2].replace(b'"t3"', b'"t9"'), *lines[3:]]


def rehashed(lines: Lines) -> Lines:
    """Return the lines with a changed one whose hash was computed again."""
    import hashlib

    line = json.loads(lines[2])
    line["config_version"] = "t9"
    del line["hash"]
    canonical = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    line["hash"] = hashlib.sha256(canonical.encode()).hexdigest()
    data = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode()
    return [*lines[:2], data + b"\n", *lines[3:]]


TAMPERED: dict[str, tuple[Callable[[Lines], Lines], int, str]] = {
    "changed": (changed, 3, "was changed"),
    "changed, with a new hash": (rehashed, 4, "does not follow the line before it"),
    "taken out": (lambda lines: lines[:2] + lines[3:], 3, "has the number 4"),
    "the first taken out": (lambda lines: lines[1:], 1, "has the number 2"),
    "two exchanged": (lambda lines: [*lines[:2], lines[3], lines[2], lines[4]], 3, "has the number 4"),
    "one twice": (lambda lines: [*lines[:3], *lines[2:]], 4, "has the number 3"),
    "the end cut off": (lambda lines: lines[:3], 4, "the end is missing"),
    "all of it": (lambda _: [], 1, "the end is missing"),
    "the last line torn": (lambda lines: [*lines[:4], lines[4][:20]], 5, "is incomplete"),
    "something else put in": (lambda lines: [*lines[:2], b"{}\n", *lines[2:]], 3, "was changed"),
    "a name put in twice": (
        lambda lines: [*lines[:2], lines[2].replace(b"{", b'{"who":"eve",', 1), *lines[3:]],
        3,
        "was changed",
    ),
    "spaces put in": (lambda lines: [*lines[:2], lines[2].replace(b":", b": ", 1), *lines[3:]], 3, "was changed"),
    "no JSON put in": (lambda lines: [*lines[:2], b"\xff\xfe\n", *lines[2:]], 3, "is not a line of the trail"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_first_invalid_line_is_reported(tmp_path: Path, name: str) -> None:
    tamper, line, reason = TAMPERED[name]
    head = written(tmp_path)
    (tmp_path / "audit.jsonl").write_bytes(b"".join(tamper(lines_of(tmp_path))))
    fault = verify_trail(tmp_path, {"history.db": head}).faults[0]
    assert (fault.line, reason in fault.reason) == (line, True), fault


def test_each_fault_is_named(tmp_path: Path) -> None:
    head = written(tmp_path, 7)
    lines = lines_of(tmp_path)
    lines[1], lines[4] = lines[1].replace(b'"t2"', b'"t9"'), b"{}\n"
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines[:6]))
    found = [*verify_trail(tmp_path, {"history.db": head}).findings()]
    assert [it[:20] for it in found] == [
        "line 2 was changed: ", "line 5 was changed: ", "line 6 has the numbe", "line 7 the trail end",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["number", "at", "event", "previous", "hash"])
def test_entry_with_a_name_of_each_line_is_refused(tmp_path: Path, name: str) -> None:
    audit = Audit(tmp_path, BEGINNING)
    with pytest.raises(ValueError, match=f"must not have the fields .'{name}'"):
        audit.append("key_blocked", AT, {"key": "k", name: "x"})
    audit.close()
    assert verify_trail(tmp_path, {}).lines == 0


KEY = "ab" * 32


def line_of_1_0(head: TrailHead, **fields: object) -> bytes:
    """Return a line as 1.0.0 wrote it: it counts the hash of the key, and writes its own hash in that place."""
    of_block = {"key": KEY[:12], "client": "app", "hash": f"sha256:{KEY}", "who": "ines", **fields}
    line = {"number": head.number + 1, "at": "2026-11-20T00:00:00.000+00:00", "event": "key_blocked"}
    digest = audit_module._hash({**line, **of_block, "previous": head.hash})
    return audit_module._encode({**line, **of_block, "hash": digest, "previous": head.hash})


def test_block_of_a_key_that_1_0_wrote_is_verified_by_the_hash_of_the_key(tmp_path: Path) -> None:
    head = written(tmp_path, 2)
    data = b"".join(lines_of(tmp_path)) + line_of_1_0(head)
    (tmp_path / "audit.jsonl").write_bytes(data)
    audit = Audit(tmp_path, head)
    last = audit.append("stopped", AT, {})
    audit.close()
    known = key_hashes([b'keys: ["SHA256:' + KEY.upper().encode() + b'"]', None])
    assert known == {KEY}
    verdict = verify_trail(tmp_path, {"history.db": last}, known)
    assert (verdict.lines, verdict.faults, verdict.chained) == (4, (), ())
    assert verify_trail(tmp_path, {"history.db": last}).chained == (3,)
    whole = (tmp_path / "audit.jsonl").read_bytes()
    for told, old, new, line, reason in (
        (known, b'"ines"', b'"eve!"', 3, "its hash does not match"),
        (frozenset[str](), b'"who":"ines"', b'"config_version":"t9"', 3, "its hash does not match"),
        (frozenset[str](), b'"key_blocked"', b'"activated"', 3, "its hash does not match"),
        (frozenset[str](), b'"number":3', b'"number":9', 3, "has the number 9"),
    ):
        (tmp_path / "audit.jsonl").write_bytes(whole.replace(old, new, 1))
        fault = verify_trail(tmp_path, {"history.db": last}, told).faults[0]
        assert (fault.line, reason in fault.reason) == (line, True), fault


@given(index=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_change_of_any_byte_is_detected(tmp_path_factory: pytest.TempPathFactory, index: int, flip: int) -> None:
    directory = tmp_path_factory.mktemp("trail")
    head = written(directory, 3)
    data = bytearray((directory / "audit.jsonl").read_bytes())
    data[index % len(data)] ^= flip
    (directory / "audit.jsonl").write_bytes(bytes(data))
    assert verify_trail(directory, {"history.db": head}).faults


def test_head_from_a_log_reveals_a_truncated_trail(tmp_path: Path) -> None:
    head = written(tmp_path)
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines_of(tmp_path)[:2]))
    assert verify_trail(tmp_path, {}).faults == ()
    fault = verify_trail(tmp_path, {"--head": head.hash}).faults[0]
    assert fault.line == 3


def test_earlier_head_is_valid_after_the_trail_has_grown(tmp_path: Path) -> None:
    earlier = written(tmp_path, 2)
    audit = Audit(tmp_path, earlier)
    audit.append("stopped", AT, {})
    audit.close()
    assert verify_trail(tmp_path, {"--head": earlier.hash}).faults == ()


def test_incomplete_last_line_is_removed_and_reported(tmp_path: Path) -> None:
    head = written(tmp_path, 2)
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"number":3,"at"')
    audit = Audit(tmp_path, head)
    assert "removed 16 bytes of an incomplete last line" in audit.repair
    audit.append("started", AT, {})
    audit.close()
    assert verify_trail(tmp_path, {"history.db": audit.head}).faults == ()


def test_chain_stays_broken_after_its_end_was_removed(tmp_path: Path) -> None:
    head = written(tmp_path)
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines_of(tmp_path)[:3]))
    audit = Audit(tmp_path, head)
    assert "line 5 should exist, but its last line is 3" in audit.repair
    audit.append("started", AT, {})
    audit.close()
    fault = verify_trail(tmp_path, {"history.db": audit.head}).faults[0]
    assert fault.line == 4


@cases("events", "numbers")
def test_switch_after_the_known_head_is_unconfirmed(
    tmp_path: Path, events: list[str], numbers: tuple[int, ...]
) -> None:
    known = written(tmp_path, 2)
    audit = Audit(tmp_path, known)
    for event in events:
        audit.append(event, AT, {})
    audit.close()
    assert verify_trail(tmp_path, {"history.db": known}).unconfirmed == numbers
    for heads in ({"history.db": audit.head}, {"history.db": known, "receipts.db": audit.head}, {}):
        assert verify_trail(tmp_path, heads).unconfirmed == ()
    # A new history has no known head.
    for head, found in [(known, numbers), (audit.head, ()), (BEGINNING, ())]:
        again = Audit(tmp_path, head)
        again.close()
        assert again.unconfirmed == found


def test_unreadable_last_line_is_reported_and_stays(tmp_path: Path) -> None:
    head = written(tmp_path, 2)
    (tmp_path / "audit.jsonl").write_bytes(lines_of(tmp_path)[0] + b"{}\n")
    audit = Audit(tmp_path, head)
    audit.close()
    assert "line 2 should exist, but its last line can't be read" in audit.repair
    assert lines_of(tmp_path)[1:] == [b"{}\n"]


def test_line_written_just_before_a_crash_counts(tmp_path: Path) -> None:
    known = written(tmp_path, 2)
    audit = Audit(tmp_path, known)
    audit.append("activated", AT, {})
    audit.close()
    again = Audit(tmp_path, known)
    assert (again.head, again.repair) == (audit.head, "")
    again.close()


def test_unwritable_trail_raises_an_error(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(StateError, match=r"audit\.jsonl can't be used"):
        Audit(tmp_path, BEGINNING)


@pytest.mark.parametrize("lost", ["removed", "moved away", "replaced"])
def test_moved_or_removed_trail_accepts_no_line(tmp_path: Path, lost: str) -> None:
    audit = Audit(tmp_path, BEGINNING)
    audit.append("started", AT, {})
    path = tmp_path / "audit.jsonl"
    if lost == "removed":
        path.unlink()
    else:
        path.rename(tmp_path / "audit.jsonl.1")
    if lost == "replaced":
        path.write_bytes((tmp_path / "audit.jsonl.1").read_bytes())
    with pytest.raises(StateError, match="was moved or removed"):
        audit.append("activated", AT, {})
    audit.close()


def test_name_with_invalid_utf8_is_written_and_verified(tmp_path: Path) -> None:
    """The path of a config with invalid UTF-8 arrives from the system in this form."""
    audit = Audit(tmp_path, BEGINNING)
    audit.append("started", AT, {"config": "caf\udce9.yaml"})
    audit.close()
    verdict = verify_trail(tmp_path, {"history.db": audit.head})
    assert (verdict.lines, verdict.faults) == (1, ())


def test_inaccessible_directory_is_not_reported_as_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    audit = Audit(tmp_path, BEGINNING)
    with monkeypatch.context() as patched:
        patched.setattr("gateway.state.audit.os.stat", refuse)
        with pytest.raises(StateError, match=r"audit\.jsonl can't be written: Permission denied$"):
            audit.append("activated", AT, {})
    audit.append("activated", AT, {})
    audit.close()


def test_partial_line_that_could_not_be_removed_is_removed_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens on a full disk that then becomes read-only."""
    write, audit = os.write, Audit(tmp_path, BEGINNING)
    audit.append("started", AT, {})

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.state.audit.os.write", lambda descriptor, data: write(descriptor, data[:9]))
        patched.setattr("gateway.state.audit.os.ftruncate", refuse)
        for _ in range(2):
            with pytest.raises(StateError, match=r"audit\.jsonl can't be written: Read-only file system"):
                audit.append("activated", AT, {})
    audit.append("stopped", AT, {})
    audit.close()
    assert [json.loads(line)["event"] for line in lines_of(tmp_path)] == ["started", "stopped"]
    assert verify_trail(tmp_path, {"history.db": audit.head}).faults == ()
