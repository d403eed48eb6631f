"""Reading: files, environment, the content hash; and that no secret is ever shown."""

import os
from pathlib import Path

import pytest

from gateway.config.loading import Document, load_document, parse_document
from gateway.config.problems import ConfigRejected
from gateway.config.secret_references import read_literal, resolve
from providers.auth import Secret
from tests.kit.case_files import tables_of
from tests.kit.config_cases import compiled, edited, more, problems_of, sections

HUSH = "hush-hush-0123456789"


def document(text: str) -> Document:
    return parse_document(text.encode(), "f.yaml", {})


class TestFile:
    def test_a_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "gateway.yaml"
        path.write_text(sections())
        loaded = load_document(path, {"CN_KEY": "sk"})
        assert loaded.source.file == str(path)
        assert loaded.source.values["version"] == 1
        assert loaded.references["${CN_KEY}"].secret == Secret("sk")
        assert loaded.references["${US_KEY}"].missing == "is not set"

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "nothing.yaml"
        with pytest.raises(ConfigRejected) as caught:
            load_document(path, {})
        assert [str(problem) for problem in caught.value.problems] == [
            f"{path}: the file can't be read (No such file or directory); `gateway init` writes one to start from"
        ]

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigRejected, match=r"the file can't be read \(Is a directory\)$"):
            load_document(tmp_path, {})


class TestVersion:
    def test_version_is_twelve_hex_digits_of_the_content(self) -> None:
        version = document("a: 1\nb: [x, NO]").version
        assert version == document("# a comment\nb:\n  - x\n  - 'NO'\n'a': 1\n").version
        assert len(version) == 12
        assert int(version, 16) >= 0

    @pytest.mark.parametrize("text", ["a: 2\nb: [x, NO]", "a: 1\nb: [NO, x]", "a: '1'\nb: [x, NO]", "a: 1"])
    def test_other_content_is_another_version(self, text: str) -> None:
        assert document(text).version != document("a: 1\nb: [x, NO]").version

    def test_version_does_not_depend_on_secrets(self) -> None:
        text = sections().encode()
        versions = {parse_document(text, "f", environ).version for environ in ({}, {"CN_KEY": "a"}, {"CN_KEY": "b"})}
        assert len(versions) == 1

    def test_the_table_carries_it(self) -> None:
        assert compiled(sections()).config.version == document(sections()).version


class TestReferences:
    @pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
    def test_a_file_holds_a_secret(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / "key"
        path.write_bytes(HUSH.encode() + ending.encode())
        found = resolve(f"${{file:{path}}}", {})
        assert (found.secret, found.source, found.missing, found.mistake) == (Secret(HUSH), str(path), "", "")

    def test_a_link_to_a_file_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text(HUSH)
        (tmp_path / "link").symlink_to(tmp_path / "key")
        assert resolve(f"${{file:{tmp_path}/link}}", {}).secret == Secret(HUSH)

    def test_reference_to_a_non_file_is_missing(self, tmp_path: Path) -> None:
        (tmp_path / "empty").write_text("\n")
        os.mkfifo(tmp_path / "pipe")
        missing = {
            name: resolve(f"${{file:{tmp_path}/{name}}}", {}).missing for name in ("nothing", "empty", "pipe", "")
        }
        assert missing == {
            "nothing": "can't be read (No such file or directory)",
            "empty": "is empty",
            "pipe": "is not a regular file",
            "": "is not a regular file",
        }

    def test_a_file_that_is_too_large_is_a_mistake(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("x" * 65537)
        assert resolve(f"${{file:{tmp_path}/key}}", {}).mistake == "is too large for a secret"

    @pytest.mark.parametrize("value", ["a\nb", "a\r\nx: y", "a\x00", "a\x7f", " a", "a ", "clé", "ключ", "\n", "a\n\n"])
    def test_value_that_no_header_can_carry_is_an_error(self, tmp_path: Path, value: str) -> None:
        (tmp_path / "key").write_bytes(value.encode() + b"\n")
        from_file = resolve(f"${{file:{tmp_path}/key}}", {})
        for found in (resolve("${A}", {"A": value}), from_file, read_literal(value)):
            assert (found.secret, found.mistake) == (None, "can't be sent in a header")

    @pytest.mark.parametrize(
        "text",
        ["${}", "${A-B}", "${A:-x}", "$${A}", "${A}${B}", "x${A}", "${A} ", "${file:}", "${file:a}", "${env:A}", "${A"],
    )
    def test_malformed_reference_is_an_error(self, text: str) -> None:
        for environ in ({"A": "x", "B": "x"}, None):
            assert resolve(text, environ).mistake == "is not a reference that can be resolved"

    @pytest.mark.parametrize(
        ("text", "proposed"),
        [("os.environ/OPENAI_API_KEY", "OPENAI_API_KEY"), ("env.OPENAI_API_KEY", "OPENAI_API_KEY"),
         ("env:OPENAI_API_KEY", "OPENAI_API_KEY"), ("process.env.KEY", "KEY"), ("$OPENAI_API_KEY", "OPENAI_API_KEY"),
         ("$env:KEY", "KEY"), ("{{ env.KEY }}", "NAME"), ("{{KEY}}", "NAME"), ("{vault://env/openai}", "NAME"),
         ("<OPENAI_API_KEY>", "NAME")],
    )  # fmt: skip
    def test_foreign_reference_syntax_is_not_used_as_the_secret(self, text: str, proposed: str) -> None:
        found = read_literal(text)
        assert (found.secret, found.mistake) == (None, "is a reference in the syntax of another program")
        assert f"${{{proposed}}}" in found.hint

    @pytest.mark.parametrize("text", ["sk-env.x", "environ", "AKIA/env", "$2b$12$abc", '{"type":"x"}', "id:key", "env"])
    def test_possible_secret_is_accepted(self, text: str) -> None:
        assert read_literal(text).secret is not None

    def test_references_are_not_resolved_without_secrets(self) -> None:
        compilation = compiled(more_key("'${file:/not/there}'"), {"US_KEY": "a\nb"}, secrets=False)
        assert compilation.warnings == ()
        deployments = compilation.config.deployments.values()
        assert {secret.reveal() for item in deployments for secret in item.credentials} == {"unresolved"}


def more_key(key: str) -> str:
    """The sound config with one deployment more, in its route, that has this key."""
    line = f"x: {{provider: openai, model: gpt-6-luna, endpoint: us, api_key: {key}}}"
    return edited(sections(deployments=more("deployments", line)), ("us: [chatgpt-us]", "us: [chatgpt-us, x]"))


_TABLES = tables_of(__file__)
LEAKS = _TABLES["leaks"]


@pytest.mark.parametrize("name", LEAKS)
def test_no_secret_is_shown(name: str) -> None:
    environ = {"CN_KEY": HUSH, "EU_KEY": HUSH, "US_KEY": HUSH, "BAD": f"{HUSH}\n\n"}
    shown = [repr(problems_of(LEAKS[name], environ)), "\n".join(map(str, problems_of(LEAKS[name], environ)))]
    try:
        read = parse_document(LEAKS[name].encode(), "f", environ)
        shown += [repr(read), repr(compiled(LEAKS[name], environ).config)]
    except ConfigRejected as rejection:
        shown += [repr(rejection), str(rejection)]
    assert not [text for text in shown if HUSH in text or "42424242" in text]
