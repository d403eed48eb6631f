"""A config with unusable files is compiled and reported once, and then not again until a file changes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.changes.compile_job import CompileJob, compile_here
from gateway.config.source_text import MAX_BYTES, read_files
from tests.kit.configs import BASE, KEYS


def _large(path: Path) -> None:
    path.write_bytes(b"#" * (MAX_BYTES + 1))


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _: None, "No such file or directory"),
    "a directory": (Path.mkdir, "Is a directory"),
    "a pipe": (os.mkfifo, "it is not a regular file"),
    "too large": (_large, "larger than 4 MiB"),
    "empty": (Path.touch, "the file is empty"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_unusable_config_is_reported_and_has_the_digest_that_the_watch_computes(tmp_path: Path, kind: str) -> None:
    config, (make, words) = tmp_path / "gateway.yaml", KINDS[kind]
    make(config)
    outcome = compile_here(CompileJob(str(config)), KEYS)
    assert words in str(outcome.problems[0])
    assert (outcome.at_rest, outcome.files) == (True, read_files([str(config)]))


@pytest.mark.parametrize("kind", KINDS)
def test_unusable_catalogue_has_the_digest_that_the_watch_computes(tmp_path: Path, kind: str) -> None:
    catalogue, config = tmp_path / "models.yaml", tmp_path / "gateway.yaml"
    config.write_text(BASE.merge("catalogue: {models: models.yaml}").text, "utf-8")
    KINDS[kind][0](catalogue)
    outcome = compile_here(CompileJob(str(config)), KEYS)
    assert any("models.yaml" in str(problem) for problem in outcome.problems if problem.severity == "error")
    assert (outcome.at_rest, outcome.files) == (True, read_files([str(config), str(catalogue)]))


def test_impossible_file_name_is_reported_at_its_key(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(BASE.merge({"catalogue": {"models": "a\0b"}}).text, "utf-8")
    outcome = compile_here(CompileJob(str(config)), KEYS)
    (error,) = [problem for problem in outcome.problems if problem.severity == "error"]
    assert (error.path, "no file can have that name" in error.message) == (("catalogue", "models"), True)
    assert (outcome.at_rest, outcome.files) == (True, read_files(outcome.files))
