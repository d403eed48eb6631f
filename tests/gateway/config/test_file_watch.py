"""Changed files are detected by content, also after renames and through links, and only when they are stable."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config import source_text as module
from gateway.config.loading import load_document
from gateway.config.problems import ConfigRejected
from gateway.config.source_text import MAX_BYTES, MISSING, Watch, digest, read_files


def test_file_reading_depends_on_content_only(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"one")
    known = os.stat(path)
    before = read_files([str(path)])
    os.utime(path, (1, 1))
    assert read_files([str(path)]) == before == {str(path): digest(b"one")}
    other.write_bytes(b"two")
    os.utime(other, ns=(known.st_atime_ns, known.st_mtime_ns))
    os.replace(other, path)
    # Neither the size nor the time shows that the file has changed.
    assert os.stat(path).st_size == known.st_size
    assert read_files([str(path)]) == {str(path): digest(b"two")}


def test_a_link_is_read_through(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    link = tmp_path / "data"
    link.symlink_to("one")
    assert read_files([str(link / "file")]) == {str(link / "file"): digest(b"one")}
    link.unlink()
    link.symlink_to("two")
    assert read_files([str(link / "file")]) == {str(link / "file"): digest(b"two")}


def test_reading_a_pipe_or_directory_is_missing_and_does_not_block(tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to("loop")
    paths = [str(path) for path in (tmp_path, pipe, loop, tmp_path / "nothing", tmp_path / "nowhere" / "x")]
    assert read_files(paths) == dict.fromkeys(paths, MISSING)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_reading_without_free_descriptors_is_not_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(_: str) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "a"
    path.write_bytes(b"one")
    paths = [str(path)]
    watch = Watch(read_files(paths))
    with monkeypatch.context() as while_full:
        while_full.setattr(module, "open_file", full)
        for _ in range(3):
            assert not watch.settled(read_files(paths))
            assert not watch.is_news(read_files(paths))
    assert not watch.settled(read_files(paths))
    path.write_bytes(b"two")
    assert [watch.settled(read_files(paths)) for _ in range(2)] == [False, True], "and then a change is one"


def test_large_file_is_compared_by_its_time(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    before = read_files([str(path)])
    assert before == read_files([str(path)])
    os.utime(path, (1, 1))
    assert read_files([str(path)]) not in (before, {str(path): MISSING})


def test_watch_applies_a_stable_reading_once() -> None:
    watch = Watch({"f": "a"})
    settled = [watch.settled({"f": content}) for content in "aabcdd"]
    assert settled == [False, False, False, False, False, True]
    watch.mark_applied({"f": "d"})
    assert not any(watch.settled({"f": content}) for content in "dddd")
    assert watch.paths == ("f",)


@given(st.lists(st.sampled_from("abc"), max_size=30))
@example(list("babaa"))  # a change that is reverted
def test_applied_reading_was_new_and_seen_twice(contents: list[str]) -> None:
    watch, known, last = Watch({"f": "a"}), "a", ""
    for content in contents:
        settled = watch.settled({"f": content})
        assert settled == (content != known and content == last)
        last = content
        if settled:
            watch.mark_applied({"f": content})
            known, last = content, ""


def test_a_document_knows_every_file_that_it_comes_from(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret", tmp_path / "c.yaml"
    secret.write_text("sk-x")
    path.write_text(f"version: 1\na: '${{file:{secret}}}'\nb: ['${{NAME}}', '${{file:/no/such}}']\n")
    document = load_document(path, {"NAME": "x"})
    assert document.files == {str(path): digest(path.read_bytes()), str(secret): digest(b"sk-x"), "/no/such": MISSING}
    assert "sk-x" not in repr(document.files)
    assert load_document(path, {}, secrets=False).files == {str(path): digest(path.read_bytes())}


def test_missing_document_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigRejected, match="can't be read"):
        load_document(tmp_path / "none.yaml", {})
