"""`secrets: {file: FILE}`, and the commands that write and rotate the file."""

from pathlib import Path

import pytest

from gateway.config.compile import Compiled
from gateway.config.problems import ConfigRejected
from gateway.config.secrets_file import read_secrets_file
from gateway.config.sensitive_keys import secrets_in_clear
from tests.kit.case_files import cases
from tests.kit.config_cases import compiled_file
from tests.kit.configs import BASE, KEYS
from tests.kit.gateway_command import in_this_process


def compiled(folder: Path, *, secrets: bool = True, extra: str = "{}") -> Compiled:
    path = BASE.merge("secrets: {file: keys.yaml}", extra).write(folder)
    return compiled_file(path, KEYS, secrets=secrets)


def problem_of(folder: Path) -> str:
    with pytest.raises(ConfigRejected) as rejected:
        compiled(folder)
    (problem,) = [item for item in rejected.value.problems if item.severity == "error"]
    return str(problem)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    assert in_this_process("secrets", "new", str(path)).returncode == 0
    return path


def test_new_file_has_every_key_and_only_its_owner_can_read_it(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    config = compiled(file.parent).config
    secrets = config.secrets
    versions = (secrets.consent, secrets.identity, secrets.pepper)
    assert [len(one) for one in versions] == [1, 1, 1]
    assert len({version.reveal() for one in versions for version in one}) == 3
    assert secrets.consent[0].reveal() not in repr(config)


def test_file_of_release_0_2_0_is_read_and_loses_its_unused_keys_at_a_rotation(file: Path) -> None:
    with file.open("a") as text:
        text.write("".join(f'{name}: ["{name * 8}"]\n' for name in ("cookies", "receipts")))
    assert compiled(file.parent).config.secrets.pepper
    assert in_this_process("secrets", "rotate", str(file), "pepper").returncode == 0
    assert "cookies" not in file.read_text()
    assert len(compiled(file.parent).config.secrets.pepper) == 2


def test_unknown_key_in_the_file_is_an_error_that_names_the_keys(file: Path) -> None:
    with file.open("a") as text:
        text.write("cookie: hunter2\n")
    assert problem_of(file.parent).endswith("has 1 unknown keys; it has consent, identity, pepper")


def test_file_is_not_overwritten(file: Path) -> None:
    text = file.read_text()
    done = in_this_process("secrets", "new", str(file))
    assert (done.returncode, file.read_text()) == (2, text)
    assert "exists already" in done.stderr


def test_rotated_key_has_two_valid_versions_and_the_newer_is_first(file: Path) -> None:
    (first,) = read_secrets_file(str(file)).keys["pepper"]
    for _ in range(2):
        assert in_this_process("secrets", "rotate", str(file), "pepper").returncode == 0
    third, second = read_secrets_file(str(file)).keys["pepper"]
    assert first.reveal() not in file.read_text()
    assert compiled(file.parent).config.secrets.pepper == (third, second)
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(read_secrets_file(str(file)).keys["consent"]) == 1


def test_rotation_of_an_unknown_key_names_the_keys(file: Path) -> None:
    done = in_this_process("secrets", "rotate", str(file), "peper")
    assert done.returncode == 2
    assert "there is no key 'peper'; the file has consent, identity, pepper" in done.stderr


def test_changed_file_is_noticed(file: Path) -> None:
    before = compiled(file.parent).files[str(file)]
    in_this_process("secrets", "rotate", str(file), "identity")
    assert compiled(file.parent).files[str(file)] != before


def test_path_of_the_file_is_not_a_secret(file: Path) -> None:
    assert secrets_in_clear({"secrets": {"file": str(file), "pepper": "x" * 32}}) == ["secrets.pepper"]


def test_file_is_not_read_without_secrets(tmp_path: Path) -> None:
    assert compiled(tmp_path, secrets=False).config.secrets.pepper


@cases("text", "mode", "message")
def test_file_that_cannot_be_used_is_an_error_that_shows_no_key(
    tmp_path: Path, text: str | None, mode: int, message: str
) -> None:
    if text is not None:
        (tmp_path / "keys.yaml").write_text(text)
        (tmp_path / "keys.yaml").chmod(mode)
    found = problem_of(tmp_path)
    assert message in found
    assert "hunter2" not in found


def test_key_in_the_section_and_in_the_file_is_an_error(file: Path) -> None:
    with pytest.raises(ConfigRejected) as rejected:
        compiled(file.parent, extra="secrets: {identity: '${IDENTITY}'}")
    assert any("is in the file `secrets.file` too" in str(problem) for problem in rejected.value.problems)
