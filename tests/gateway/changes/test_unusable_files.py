"""A config with unusable files is compiled and reported once, and then not again until a file changes."""

import os
from pathlib import Path

import pytest

from gateway.changes.compile_job import CompileJob, compile_here
from gateway.config.source_text import MAX_BYTES, read_files
from tests.kit.configs import BASE, KEYS


def _large(path: Path) -> None:
    path.write_bytes(b"#" * (MAX_BYTES + 1))


KINDS = {
    "nothing": lambda _: None,
    "a directory": Path.mkdir,
    "a pipe": os.mkfifo,
    "too large": _large,
    "empty": Path.touch,
}


@pytest.mark.parametrize("kind", KINDS)
def test_unusable_catalogue_has_the_digest_that_the_watch_computes(tmp_path: Path, kind: str) -> None:
    catalogue, config = tmp_path / "models.yaml", tmp_path / "gateway.yaml"
    config.write_text(BASE.merge("catalogue: {models: models.yaml}").text, "utf-8")
    KINDS[kind](catalogue)
    outcome = compile_here(CompileJob(str(config)), KEYS)
    assert any("models.yaml" in str(problem) for problem in outcome.problems if problem.severity == "error")
    assert (outcome.at_rest, outcome.files) == (True, read_files([str(config), str(catalogue)]))


def test_impossible_file_name_is_reported_at_its_key(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(BASE.merge({"catalogue": {"models": "a\0b"}}).text, "utf-8")
    outcome = compile_here(CompileJob(str(config)), KEYS)
    errors = [problem for problem in outcome.problems if problem.severity == "error"]
    assert [(error.path, "no file can have that name" in error.message) for error in errors] == [
        (("catalogue", "models"), True)
    ]
    assert (outcome.at_rest, outcome.files) == (True, read_files(outcome.files))
