"""The kit accepts vendors that differ, refuses code that breaks the contract, and runs at third parties."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from zlib import crc32

import pytest

from providers.chat import ChatCompletion, ChatRequest, StreamEvent, Usage
from providers.conformance import test_answers as answers
from providers.conformance import test_errors as errors
from providers.conformance import test_garbage as garbage
from providers.conformance import test_purity as purity
from providers.conformance import test_streams as streams
from providers.conformance.recordings import WireError, find_wire_cases
from providers.conformance.selection import select
from providers.conformance.subject import Subject
from providers.failures import FailureKind
from providers.vendors.openai.adapter import COMPATIBLE
from providers.vendors.openai.simulator import OpenAISimulator
from providers.wire import WireResponse
from tests.conformance.array_lines import ArrayLines, ArrayParser
from tests.conformance.planted import Bug, PlantedParser, subject, subject_of
from tests.kit.case_files import cases

pytestmark = pytest.mark.slow("runs parts of the kit many times")

_ERROR = (FailureKind.CREDENTIALS, 401)


GOOD = subject_of(Bug())


@dataclass(frozen=True, slots=True)
class PlainTextErrors(OpenAISimulator):
    """A vendor whose error bodies are plain text."""

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        return WireResponse(status, {"content-type": "text/plain"}, f"ERR|{kind.value}".encode(), 0)


def test_kit_accepts_error_bodies_in_plain_text() -> None:
    one = replace(GOOD, simulator=PlainTextErrors("openai-compatible"))
    garbage.test_error_with_one_wrong_value_never_raises(one)
    errors.test_error_text_of_the_provider_does_not_reach_the_client(one, *_ERROR)


@pytest.mark.parametrize(
    "rule",
    [
        streams.test_a_repeated_or_missing_end_makes_no_difference,
        streams.test_unknown_fields_and_events_are_ignored,
        streams.test_missing_member_never_becomes_another_finish_reason,
        streams.test_blank_lines_and_line_ends_of_json_lines_are_ignored,
        streams.test_invalid_json_event_is_not_ignored,
        streams.test_truncated_stream_fails,
        garbage.test_stream_with_one_wrong_value_never_raises,
    ],
    ids=lambda rule: rule.__name__,
)
def test_kit_accepts_lines_of_json_arrays(rule: Callable[[Subject], None]) -> None:
    rule(replace(subject_of(Bug(parser=ArrayParser)), simulator=ArrayLines("openai-compatible")))


@pytest.mark.parametrize("wrong", [None, "7", -1, 1.5, True])
def test_kit_names_a_wrong_count(wrong: object) -> None:
    usage = Usage(prompt_tokens=wrong)  # type: ignore[arg-type]
    one = subject_of(Bug(answer=lambda answer, _: replace(answer, usage=usage)))
    with pytest.raises(AssertionError, match=f"`prompt_tokens` of the usage is {wrong!r}: read counts with "):
        garbage.test_answer_with_one_wrong_value_never_raises(one)


def test_each_assertion_of_the_kit_has_a_sentence() -> None:
    for path in sorted(Path(streams.__file__).parent.glob("*.py")):
        bare = [
            one.lineno
            for one in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(one, ast.Assert) and one.msg is None
        ]
        assert not bare, f"{path.name}, lines {bare}: say to the author of an adapter what to do"


@dataclass(frozen=True, slots=True)
class ErrorsWithoutCode(OpenAISimulator):
    """A vendor whose errors have no code: only the status, `fixed_status` or the requested one, shows the kind."""

    fixed_status: int | None = None

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        return WireResponse(
            self.fixed_status or status, {"content-type": "application/json"}, b'{"error": {"code": ""}}', 0
        )


def test_kit_names_the_fix_for_a_quota_error_without_a_code() -> None:
    check_classified = errors.test_provider_errors_are_classified
    with pytest.raises(AssertionError, match=r"leaves `quota` out of \[simulator.errors\]"):
        check_classified(replace(GOOD, simulator=ErrorsWithoutCode("openai-compatible")), FailureKind.QUOTA, 429)
    check_classified(replace(GOOD, simulator=ErrorsWithoutCode("openai-compatible", 402)), FailureKind.QUOTA, 429)


@dataclass(frozen=True, slots=True)
class InLines(OpenAISimulator):
    """A vendor whose streams are JSON Lines."""

    stream_type: str = "application/x-ndjson"

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        events = super(InLines, self).write_stream(completion, request)
        return tuple(event.removeprefix(b"data: ").rstrip() + b"\n" for event in events if b"{" in event)


class Lines(PlantedParser):
    """A parser that reads each line as JSON, and a blank line as `blank`."""

    def __init__(self, blank: bytes) -> None:
        super().__init__(COMPATIBLE.stream_parser(GOOD.target), Bug())
        self._blank, self._rest = blank, b""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = b"".join(b"data: " + (line.strip() or self._blank) + b"\n\n" for line in lines)
        return super().feed(events)


@pytest.mark.parametrize(("blank", "is_right"), [(b"[]", False), (b"", True)], ids=["failing", "passed_over"])
def test_kit_fails_if_a_blank_line_is_not_ignored(blank: bytes, is_right: bool) -> None:
    one = subject_of(Bug(parser=lambda _: Lines(blank)), InLines("openai-compatible"))
    assert one.streams_lines
    if is_right:
        streams.test_blank_lines_and_line_ends_of_json_lines_are_ignored(one)
        streams.test_unknown_fields_and_events_are_ignored(one)
        streams.test_invalid_json_event_is_not_ignored(one)
        return
    with pytest.raises((Exception, pytest.fail.Exception)):
        streams.test_blank_lines_and_line_ends_of_json_lines_are_ignored(one)


class SkippingLines(Lines):
    """A parser that ignores lines of invalid JSON."""

    def __init__(self) -> None:
        super().__init__(b"")
        self._kept = b""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        *lines, self._kept = (self._kept + data).split(b"\n")
        return super().feed(b"".join(line + b"\n" for line in lines if line.endswith((b"}", b"]"))))


def test_kit_fails_if_an_invalid_line_is_ignored() -> None:
    one = subject_of(Bug(parser=lambda _: SkippingLines()), InLines("openai-compatible"))
    streams.test_unknown_fields_and_events_are_ignored(one)
    with pytest.raises(AssertionError, match="is not valid JSON and was ignored"):
        streams.test_invalid_json_event_is_not_ignored(one)


def test_kit_fails_if_the_content_type_of_a_stream_means_one_json_body() -> None:
    called_json = InLines("openai-compatible", stream_type="application/stream+json")
    one = subject_of(Bug(parser=lambda _: Lines(b"")), InLines("openai-compatible"))
    answers.test_stream_is_recognised_by_its_content_type(one)
    with pytest.raises(AssertionError, match="another content type"):
        answers.test_stream_is_recognised_by_its_content_type(replace(one, simulator=called_json))


def test_json_lines_are_broken_in_the_same_way_as_events() -> None:
    lines, events = (list(garbage._broken_events(event)) for event in (b'{"say":"x"}\n', b'data: {"say":"x"}\n\n'))
    assert [b"data: " + line + b"\n" for line in lines] == events != []


def test_kit_fails_if_the_adapter_imports_an_http_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vendor_with_client"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sockets.py").write_text("def connect():\n    from urllib import request\n    return request\n")
    (package / "adapter.py").write_text(
        "from vendor_with_client import sockets\n"
        "from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter\n"
        "class Mine(OpenAIAdapter):\n    connect = sockets.connect\n"
        'ADAPTER = Mine("openai-compatible", COMPATIBLE.auth, "max_tokens")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    from vendor_with_client.adapter import ADAPTER

    with pytest.raises(AssertionError, match=r"urllib\.request"):
        purity.test_adapter_imports_no_io(subject(ADAPTER))


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime\ndef now():\n    return datetime.now()\n",
        "import uuid\ndef new():\n    return uuid.uuid4().hex\n",
        "_LAST = 0\ndef next():\n    global _LAST\n    _LAST += 1\n",
        "def rules():\n    return open('/etc/rules').read()\n",
        "from datetime import datetime as time_of\ndef now():\n    return time_of.now()\n",
        "_SEEN = {}\ndef seen(id):\n    _SEEN[id] = True\n",
        "_SEEN: list[str] = []\ndef seen(id):\n    _SEEN.append(id)\n",
        "_SEEN = {}\ndef forget(id):\n    del _SEEN[id]\n",
        "class Seen:\n    last = ''\ndef note(id):\n    Seen.last = id\n",
        "from pathlib import Path\ndef note(id):\n    Path('/tmp/ids').write_text(id)\n",
        "import logging\ndef note(id):\n    logging.warning(id)\n",
        "class Seen:\n    ids = []\ndef note(id):\n    Seen.ids.append(id)\n",
        "def note(id, seen={}):\n    seen[id] = True\n",
        "from itertools import count\n_NUMBERS = count()\ndef number():\n    return next(_NUMBERS)\n",
        "class Noting:\n    seen = {}\n    def note(self, id):\n        self.seen[id] = True\n",
    ],
    ids="clock chance global file renamed_clock table_filled list_filled table_emptied class path log list_of_a_class "
    "default counter adapter".split(),
)
def test_kit_fails_for_impure_code(source: str, written: Callable[..., Subject]) -> None:
    impure = written(source, bases="Noting, OpenAIAdapter" if "class Noting" in source else "OpenAIAdapter")
    with pytest.raises(AssertionError, match=type(impure.adapter).__module__):
        check_purity(impure)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Subject]:
    """Return a function that writes the module of an adapter, and loads it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str, members: str = "    pass\n", bases: str = "OpenAIAdapter") -> Subject:
        name = f"vendor_of_a_test_{crc32((source + members).encode())}"
        (tmp_path / f"{name}.py").write_text(
            f"{source}from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter\n"
            f"class Mine({bases}):\n{members}"
            'ADAPTER = Mine("openai-compatible", COMPATIBLE.auth, "max_tokens")\n'
        )
        return subject(import_module(name).ADAPTER)

    return write


def check_purity(subject: Subject) -> None:
    purity.test_adapter_imports_no_io(subject)
    purity.test_adapter_uses_no_clock_global_state_or_file(subject)


def test_function_may_change_its_local_objects(written: Callable[..., Subject]) -> None:
    source = (
        "KINDS = {}\nKINDS['a'] = 1\nWORDS = ['a']\n"
        "def words(WORDS):\n    WORDS.append('b')\n    KINDS = {}\n    KINDS['b'] = 2\n    return WORDS, KINDS\n"
    )
    check_purity(written(source))


@pytest.mark.parametrize(
    "members",
    [
        "    @staticmethod\n    def put(body, name):\n        body[name] = True\n",
        "    def headers(self, more={}):\n        more = dict(more)\n        more['a'] = 'b'\n        return more\n",
        "    def parser(self):\n        class Parser:\n            def feed(self, data):\n                self.last = data\n"
        "        return Parser()\n",
        "    def counted(self):\n        def count(self):\n            self['a'] += 1\n        count({'a': 0})\n",
        "    @cached_property\n    def words(self):\n        found = {}\n        found['a'] = self.name\n        return found\n",
    ],
    ids="static default_copied parser_within function_within cached_property".split(),
)
def test_kit_passes_for_pure_code_in_unusual_style(members: str, written: Callable[..., Subject]) -> None:
    check_purity(written("from functools import cached_property\n", members))


def run_kit(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the kit as a third party does, in its own repository, without the plug-ins of others: they take seconds to import."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "providers.conformance.plugin"]
    return subprocess.run(
        [*command, "--pyargs", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def plugin_folder(tmp_path: Path) -> Path:
    (tmp_path / "their_adapter.py").write_text(
        "from dataclasses import dataclass, replace\n"
        "from providers.vendors.openai.adapter import COMPATIBLE, OpenAIAdapter\n"
        "from providers.vendors.openai.simulator import OpenAISimulator\n"
        "@dataclass(frozen=True, slots=True)\n"
        "class Theirs(OpenAIAdapter):\n"
        "    sites = property(lambda self: {})\n"
        "    models = property(lambda self: {})\n"
        "class Forgetful(Theirs):\n"
        "    def build_request(self, request, target):\n"
        "        return Theirs.build_request(self, replace(request, stop=()), target)\n"
        'GOOD = Theirs("theirs", COMPATIBLE.auth, "max_tokens")\n'
        'BROKEN = Forgetful("theirs", COMPATIBLE.auth, "max_tokens")\n'
        'SIMULATOR = OpenAISimulator("theirs")\n'
    )
    (tmp_path / "unfinished.py").write_text("ADAPTER = Theirs(\n")
    (tmp_path / "misread.py").write_text(
        "from providers.compatible import adapter_of\n"
        "ADAPTER = adapter_of('name = \"misread\"\\n[dialect]\\ncolour = 1\\n')\n"
    )
    (tmp_path / "alone.py").write_text(
        "from their_adapter import SIMULATOR as _theirs, GOOD\n"
        "class Made:\n    __new__ = lambda cls: GOOD\n"
        "class Side:\n    __new__ = lambda cls: _theirs\n"
    )
    wire = tmp_path / "tests" / "wire" / "theirs"
    wire.mkdir(parents=True)
    (wire / "hello.stream.txt").write_text('data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n')
    credits = '"about":"a","source":"b","date":"2026-11-20","model":"m"'
    answer = '{"id":"","model":"m","created":0,"choices":[{"index":0,"content":"x","finish_reason":"stop"}]}'
    (wire / "hello.expect.json").write_text(f'{{{credits},"stream":{answer}}}')
    return tmp_path


def test_third_party_adapter_passes_on_the_command_line(plugin_folder: Path) -> None:
    modules = [f"providers.conformance.test_{name}" for name in ("requests", "wire")]
    done = run_kit(plugin_folder, *modules, "--adapter", "their_adapter:GOOD", "--simulator", "their_adapter:SIMULATOR")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_adapter_in_the_current_folder_is_found_with_the_simulator_of_its_module(plugin_folder: Path) -> None:
    """`pytest` itself, unlike `python -m pytest`, does not add the current folder to the import path."""
    command = [str(Path(sys.executable).with_name("pytest")), "-q", "-p", "no:cacheprovider", "--pyargs"]
    kit = ["providers.conformance.test_purity", "--adapter", "their_adapter:GOOD"]
    done = subprocess.run([*command, *kit], cwd=plugin_folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.fixture
def imported_folder(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, whose modules this process can import."""
    monkeypatch.syspath_prepend(plugin_folder)
    for name in ("their_adapter", "alone"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return plugin_folder


def test_class_as_adapter_is_instantiated(imported_folder: Path) -> None:
    (one,) = select(["alone:Made"], ["alone:Side"], imported_folder, wire_is_given=False).subjects
    assert (one.adapter.name, one.simulator.name) == ("theirs", "theirs")


def test_broken_third_party_adapter_fails_on_the_command_line(plugin_folder: Path) -> None:
    kit = "providers.conformance.test_requests"
    done = run_kit(plugin_folder, kit, "--adapter", "their_adapter:BROKEN", "--simulator", "their_adapter:SIMULATOR")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
    assert "test_provider_receives_the_same_request[theirs-some-model-stop]" in done.stdout


@cases("adapters", "simulators", "complaint")
def test_wrong_option_is_reported(
    imported_folder: Path, adapters: list[str], simulators: list[str], complaint: str
) -> None:
    with pytest.raises(pytest.UsageError, match=complaint):
        select(adapters, simulators, imported_folder, wire_is_given=False)


def test_wrong_option_is_reported_in_one_line(plugin_folder: Path) -> None:
    kit = "providers.conformance.test_purity"
    done = run_kit(plugin_folder, kit, "--adapter", "providers.vendors.openai.adapter:ADAPTER", "--wire", "nowhere")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.strip().splitlines() == [f"ERROR: --wire: {plugin_folder / 'nowhere'} is not a folder"]


@cases("files", "complaint")
def test_invalid_fixture_is_reported(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    (tmp_path / "openai-compatible").mkdir()
    for name, text in files.items():
        (tmp_path / "openai-compatible" / name).write_text(text)
    with pytest.raises(WireError, match=complaint):
        find_wire_cases(tmp_path, [GOOD])
