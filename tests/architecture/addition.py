"""Make an addition in a copy of the repository, as `docs/where-to-add.md` states it, and run the tests next to it.

    python -m tests.architecture.addition response-header

The rows of that page are written from `ADDITIONS`. An addition is true: with it the copy passes its near tests, and
without any of its places one of them fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.architecture.source_tree import ROOT

_FACTS = ".dist-info"
_MADE = {"__pycache__", ".hypothesis"}
"""Folders that a run leaves in a copy."""
_FROZEN = "tests/architecture/test_frozen_words.py"


@dataclass(frozen=True)
class Place:
    """One place that is edited by hand.

    Attributes:
        file: It may be a new one.
        what: The text that is written there, in the words of the page.
        before: The text before which the new one is put. Empty for a new file.
        text: The new text.
        test: The test that fails while it is missing. Empty if nothing can be imported then.
    """

    file: str
    what: str
    before: str
    text: str
    test: str

    def write(self, tree: Path, text: str) -> None:
        """Write a text at this place of a copy."""
        path = tree / self.file
        if self.before:
            present = path.read_text("utf-8")
            assert present.count(self.before) == 1, f"{self.file} must have this text once: {self.before}"
            text = present.replace(self.before, text + self.before)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


@dataclass(frozen=True)
class Slip:
    """A mistake at one place that is easy to make: a part of its text is forgotten, and a test fails."""

    place: int
    forgotten: str
    test: str


@dataclass(frozen=True)
class Addition:
    """One kind of addition with an example of it.

    Attributes:
        title: Its name on the page.
        most: So many files may be edited by hand. All that commands write is one file more.
        note: A further sentence of the page.
        tests: Further tests that pass with it.
        own: The files that are for it alone begin so, and do not count.
    """

    title: str
    most: int
    places: tuple[Place, ...]
    note: str = ""
    tests: tuple[str, ...] = ()
    slips: tuple[Slip, ...] = ()
    own: tuple[str, ...] = ()

    @property
    def by_hand(self) -> set[str]:
        """The files that are edited by hand, but for its own."""
        return {place.file for place in self.places if not place.file.startswith(self.own or "/")}

    @property
    def near(self) -> list[str]:
        """The tests next to it, each once."""
        return list(
            dict.fromkeys([*(place.test for place in self.places), *(it.test for it in self.slips), *self.tests])
        )

    @property
    def row(self) -> str:
        """Its row of the page."""
        edits = "; ".join([*(place.what for place in self.places if place.what), "`make generate`"])
        files = dict.fromkeys(f"`{test.partition('::')[0]}`" for test in self.near)
        return f"| {self.title} | {edits}{self.note} | {', then '.join(files)} |"


_SIGNAL = '''"""The signal `vehicle`: the country that a vehicle reports through a trusted edge."""

from __future__ import annotations

from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import Reports
from gateway.model.location_rules import LocationRules
from gateway.policy.location.signal import Reading, Signal, read_territory
from gateway.policy.location.trusted_edge import SignalInput
from providers.value import Value

_HEADER = "x-vehicle-country"


class VehicleReport(Value, frozen=True):
    """Every value of the header, from a trusted edge."""

    values: tuple[str, ...]


def _report(_: LocationRules, given: SignalInput) -> VehicleReport | None:
    values = given.values(_HEADER)
    return VehicleReport(values) if values and given.edge is not None else None


def _read(config: ConfigVersion, _: Client | None, reports: Reports) -> Reading | None:
    report = reports.get("vehicle")
    return read_territory(config, "vehicle", report.values) if isinstance(report, VehicleReport) else None


VEHICLE = Signal(
    "vehicle",
    _report,
    _read,
    headers=lambda _: (_HEADER,),
    can_locate=lambda config: bool(config.location.rules.edges),
    section="edges",
    reads_edges=True,
    suppose=lambda territory: VehicleReport((territory,)),
    source="the country header of a vehicle behind a trusted peer",
    use="vehicles call from many countries",
)
'''
_VENDOR = (re.sub(r"known_as = .*\n", "", (ROOT / "providers/compatible/lmstudio.toml").read_text("utf-8"))).replace(
    "[dialect]\n", "[dialect]\nunconfirmed = true\n"
)
_FEATURE = ROOT / "tests/kit/quiet_feature"


def _of_feature(file: str) -> str:
    """Return a file of the exercise's feature as it stands in the folder of features."""
    return (_FEATURE / file).read_text("utf-8").replace("tests.kit.quiet_feature", "gateway.features.quiet")


_FEATURES = "tests/architecture/test_features.py"
_AUDIO = "tests/providers/test_audio_lengths.py"
_TABLES = "tests/docs/test_tables.py"
_LOG = "tests/gateway/telemetry/test_log.py"
ADDITIONS = {
    "response-header": Addition(
        "a response header",
        2,
        (
            Place(
                "gateway/public_names.json",
                "its row at `response_headers` of `gateway/public_names.json`, with `late` if it is known when the "
                "answer has begun; that of a feature in the file of this name in its folder",
                '    "x-gateway-dropped": {',
                '    "x-gateway-upload-ms": {"meaning": "the milliseconds in which your request arrived", "late": true},\n',
                f"{_TABLES}::test_headers_are_those_of_the_api",
            ),
            Place(
                "gateway/api/response_headers.py",
                "its line in `gateway/api/response_headers.py`, or in `header_lines` of the note of a feature",
                "    if shown.labels:\n",
                '    if record.upload_s:\n        lines.append(b"x-gateway-upload-ms: %d" % (record.upload_s * 1000))\n',
                f"{_TABLES}::test_headers_are_those_of_the_api",
            ),
        ),
        ". A value that can name a model or quote a provider is redacted: `tests/gateway/api/test_hidden_models.py`",
        ("tests/gateway/api/test_marked_headers.py", "tests/gateway/api/test_cors.py"),
        (
            Slip(
                0,
                ', "late": true',
                "tests/gateway/api/test_response_headers.py::test_headers_that_the_answer_changes_are_known_late",
            ),
        ),
    ),
    "request-header": Addition(
        "a request header",
        2,
        (
            Place(
                "gateway/public_names.json",
                "its row at `request_headers` of `gateway/public_names.json`, with `of_caller` if it states what the "
                "caller wants",
                '    "x-gateway-claim": {',
                '    "x-gateway-agreement": {"meaning": "the same under an older name", "of_caller": true},\n',
                f"{_TABLES}::test_headers_are_those_of_the_api",
            ),
            Place(
                "gateway/policy/caller.py",
                "the place that reads it, by `Caller.values` (`gateway/model/caller.py`)",
                "    if len(values) > 1:\n",
                '    values = values or caller.values("x-gateway-agreement")\n',
                f"{_TABLES}::test_headers_are_those_of_the_api",
            ),
        ),
        tests=("tests/gateway/policy/test_consent.py",),
    ),
    "log-field": Addition(
        "a field of the log line",
        2,
        (
            Place(
                "gateway/public_names.json",
                "its row at `log_fields` of `gateway/public_names.json`, with the attribute of the record in `of`. If "
                "few records have it, or the record does not have it: `gateway/telemetry/request_log.py`, `gateway/model/record.py`",
                '    "use": {"meaning": "`embeddings`',
                '    "side": {"meaning": "the member of a weighted step", "of": {"side": "decided.variant"}},\n',
                _LOG,
            ),
            Place(
                "tests/gateway/telemetry/test_log.py",
                "its value in the line of `tests/gateway/telemetry/test_log.py`",
                '        "first_ms": 400.0,\n        "total_ms": 1000.0,\n',
                '        "side": None,\n',
                _LOG,
            ),
        ),
        tests=(f"{_TABLES}::test_fields_of_the_log_line_are_in_their_table",),
    ),
    "metric": Addition(
        "a metric",
        2,
        (
            Place(
                "gateway/telemetry/metrics.json",
                "its row in `gateway/telemetry/metrics.json`; that of a feature at `metrics` of its `public_names.json`",
                '  "gateway_hand_offs_total": {',
                '  "gateway_begun_answers_total": {"kind": "counter", "help": "Requests whose answer has begun.", "labels": ["region"]},\n',
                "tests/docs/test_metrics.py::test_metrics_are_those_that_the_code_counts",
            ),
            Place(
                "gateway/telemetry/metrics.py",
                "the place that counts, in `gateway/telemetry/metrics.py`, or `counts` of the note of a feature",
                "        by = record.answered_by\n        if record.cost_micros",
                '        self.count("gateway_begun_answers_total", (region,))\n',
                "tests/docs/test_metrics.py::test_metrics_are_those_that_the_code_counts",
            ),
        ),
        tests=("tests/gateway/telemetry/test_metrics.py",),
    ),
    "error-code": Addition(
        "an error code",
        3,
        (
            Place(
                "gateway/public_names.json",
                "its row at `error_codes` of `gateway/public_names.json`",
                '    "receipt_damaged": {',
                '    "nested_too_deep": {"status": 400, "reason": "request", "cause": "The body is nested too deep.", '
                '"client": "Send a flatter one.", "operator": "–"},\n',
                f"{_TABLES}::test_error_codes_are_those_of_the_api",
            ),
            Place(
                "gateway/api/errors.py",
                "the place that raises it, in `gateway/api/`; for an error of an inner layer `gateway/api/errors.py`",
                "        case HelpUnanswerable():\n",
                '        case RecursionError():\n            return ApiError("nested_too_deep", "the request is nested too deep")\n',
                f"{_TABLES}::test_error_codes_are_those_of_the_api",
            ),
            Place(
                "gateway/console/locale/zh-Hans.po",
                'its Chinese words in `gateway/console/locale/zh-Hans.po` (`msgctxt "error"`)',
                'msgctxt "error"\nmsgid "receipt_damaged"\n',
                'msgctxt "error"\nmsgid "nested_too_deep"\nmsgstr "嵌套过深"\n\n',
                "tests/gateway/console/test_texts.py::test_every_code_of_the_gateway_has_chinese_words",
            ),
        ),
        tests=("tests/gateway/api/test_errors.py",),
    ),
    "region-key": Addition(
        "a key of a region that nothing resolves",
        2,
        (
            Place(
                "gateway/config/schema/location.py",
                "its field in `RegionSection` (`gateway/config/schema/location.py`)",
                '    websocket: bool = Field(True, description="false: the Responses',
                '    audio: bool = Field(True, description="false: no audio is taken here.")\n',
                "tests/gateway/config/test_region_keys.py::test_key_that_nothing_resolves_is_a_field_of_the_region",
            ),
            Place(
                "gateway/model/config_version.py",
                "the field of this name in `Region` (`gateway/model/config_version.py`), and the code that asks",
                "    parts: Parts = field(default=NO_PARTS, repr=False, hash=False)\n    doors:",
                "    audio: bool = True\n",
                "tests/gateway/config/test_region_keys.py::test_key_that_nothing_resolves_is_a_field_of_the_region",
            ),
        ),
        tests=("tests/docs/test_generated_files.py", "tests/gateway/config/test_sensitive_keys.py"),
    ),
    "location-signal": Addition(
        "a location signal",
        3,
        (
            Place(
                "gateway/policy/location/vehicle.py",
                "one module in `gateway/policy/location/` with its `Signal` (report, meaning, words of the page, section)",
                "",
                _SIGNAL,
                "",
            ),
            Place(
                "gateway/policy/location/signals.py",
                "its place in `SIGNALS` (`gateway/policy/location/signals.py`), the default order",
                "EDGE_HEADER, GEOIP)}\n",
                "VEHICLE, ",
                "tests/gateway/console/test_texts.py::test_every_code_of_the_gateway_has_chinese_words",
            ),
            Place(
                "gateway/policy/location/signals.py",
                "its import in `gateway/policy/location/signals.py`",
                "from providers.value import Value\n",
                "from gateway.policy.location.vehicle import VEHICLE\n",
                "",
            ),
            Place(
                "gateway/console/locale/zh-Hans.po",
                'its Chinese word in `gateway/console/locale/zh-Hans.po` (`msgctxt "signal"`)',
                'msgctxt "signal"\nmsgid "unknown"\n',
                'msgctxt "signal"\nmsgid "vehicle"\nmsgstr "车辆"\n\n',
                "tests/gateway/console/test_texts.py::test_every_code_of_the_gateway_has_chinese_words",
            ),
        ),
        ". With a section: an example in `tests/kit/location_signals.py`. With a question: its answer in `LOOKUPS` of "
        "`gateway/service/location.py`",
        ("tests/architecture/test_location_signals.py", "tests/gateway/policy/test_signals.py", _TABLES),
    ),
    "quota-window": Addition(
        "a window of quotas",
        1,
        (
            Place(
                "gateway/model/quota.py",
                "its line in the sections of the units that have it (`gateway/model/quota.py`); if budgets do not have it, "
                "first there",
                "\n\n@section\nclass SpentSection",
                '    month: int | None = key("The most in a month.", default=None, ge=1, le=MOST_TOKENS)\n',
                "",
            ),
        ),
        tests=("tests/gateway/usage/test_quotas.py", "tests/docs/test_generated_files.py"),
    ),
    "websocket-message": Addition(
        "a message of the WebSocket",
        2,
        (
            Place(
                "gateway/api/websocket/session.py",
                "its row in `_TAKES` and its method (`gateway/api/websocket/session.py`)",
                '    "response.processed": TurnSession._pass_over,\n',
                '    "response.noted": TurnSession._pass_over,\n',
                f"{_TABLES}::test_messages_of_a_websocket_are_those_that_are_taken",
            ),
            Place(
                "docs/use/websocket.md",
                "its row in `docs/use/websocket.md`",
                '| `{"type": "response.processed"}` |',
                '| `{"type": "response.noted"}` | nothing |\n',
                f"{_TABLES}::test_messages_of_a_websocket_are_those_that_are_taken",
            ),
        ),
        tests=("tests/gateway/api/websocket/test_turns.py",),
    ),
    "audio-kind": Addition(
        "a kind of audio",
        2,
        (
            Place(
                "providers/inputs/audio/kinds.py",
                "its row in `KINDS` (`providers/inputs/audio/kinds.py`)",
                '}\n"""The kinds of audio files that are written down."""',
                '    "caf": AudioKind("audio/x-caf", 500, lambda head: head[:4] == b"caff"),\n',
                f"{_AUDIO}::test_names_of_kinds_are_those_of_their_type",
            ),
            Place(
                "providers/inputs/audio/kinds.py",
                "its name in `Kind` there",
                "]\n_USUAL_RATE",
                ', "caf"',
                f"{_AUDIO}::test_names_of_kinds_are_those_of_their_type",
            ),
            Place(
                "tests/providers/test_audio_lengths.py",
                "its first bytes in `tests/providers/test_audio_lengths.py`",
                '    "mp3": b"ID3\\x04",\n',
                '    "caf": b"caff\\0\\1",\n',
                f"{_AUDIO}::test_first_bytes_name_the_kind",
            ),
        ),
        tests=("tests/gateway/service/test_transcription.py",),
    ),
    "speech-format": Addition(
        "a format of speech",
        2,
        (
            Place(
                "providers/inputs/audio/kinds.py",
                "its row in `SPEECH_FORMATS` (`providers/inputs/audio/kinds.py`); for tags its place in "
                "`providers/inputs/audio/tags.py`",
                '}\n"""The formats of speech."""',
                '    "amr": SpokenKind("audio/amr", "amr"),\n',
                "",
            ),
        ),
        tests=("tests/providers/test_audio_tags.py", "tests/gateway/service/test_speech.py"),
    ),
    "vendor": Addition(
        "a provider that speaks OpenAI's dialect",
        2,
        (
            Place(
                "providers/compatible/coconut.toml",
                "one TOML file in `providers/compatible/`",
                "",
                _VENDOR,
                "tests/providers/test_entry_points.py::test_registered_vendors_are_installed",
            ),
            Place(
                "pyproject.toml",
                "its entry point of an adapter in `pyproject.toml`",
                'cohere = "providers.compatible.adapter:cohere"\n',
                'coconut = "providers.compatible.adapter:coconut"\n',
                "tests/providers/test_entry_points.py::test_compatible_vendor_is_registered",
            ),
            Place(
                "pyproject.toml",
                "that of a simulator in `pyproject.toml`",
                'cohere = "providers.compatible.simulator:cohere"\n',
                'coconut = "providers.compatible.simulator:coconut"\n',
                "tests/providers/test_entry_points.py::test_compatible_vendor_is_registered",
            ),
        ),
        ", which also installs them. [The steps](extend/compatible-vendors.md#add-a-vendor-to-this-repository)",
        ("tests/providers/test_compatible_vendors.py",),
    ),
    "feature": Addition(
        "a feature",
        3,
        (
            Place("gateway/features/quiet/__init__.py", "", "", _of_feature("__init__.py"), ""),
            Place(
                "gateway/features/quiet/config.py",
                "a folder of `gateway/features/` with `config.py` (its keys, and a `FeatureCompiler` that hangs its part)",
                "",
                _of_feature("config.py"),
                "",
            ),
            Place(
                "gateway/features/quiet/model.py",
                "there a module with the part and what it does (`RegionDoor` of `gateway/policy/doors.py`, or `RegionPart`, "
                "`RoutePart` or `Wrapper` of `parts.py`, `assistant.py` and `wrapper.py` in `gateway/model/`)",
                "",
                _of_feature("model.py"),
                "",
            ),
            Place(
                "gateway/features/quiet/public_names.json",
                "what it shows by name, in its `public_names.json`, as `gateway/public_names.json` has it for the core",
                "",
                _of_feature("public_names.json"),
                f"{_FEATURES}::test_fields_of_receipt_and_log_line_are_in_its_public_names",
            ),
            Place(
                "gateway/features/configuration.py",
                "its entry in `COMPILERS` of `gateway/features/configuration.py`",
                ')\n"""The compilers of all features',
                "    QUIET_COMPILER,\n",
                f"{_FEATURES}::test_each_folder_is_in_each_list",
            ),
            Place(
                "gateway/features/configuration.py",
                "",
                "from gateway.features.redaction.config",
                "from gateway.features.quiet.config import QUIET_COMPILER\n",
                "",
            ),
            Place(
                "docs/operate/quiet.md",
                "its page `docs/operate/NAME.md`, listed in `mkdocs.yml`",
                "",
                "# Hours\n\n`regions.X.quiet` has the hours in which chats are answered.\n",
                f"{_FEATURES}::test_the_page_of_the_feature_names_its_keys",
            ),
            Place(
                "mkdocs.yml", "", "          - Minors: operate/minors.md\n", "          - Hours: operate/quiet.md\n", ""
            ),
            Place(
                "tests/architecture/features/quiet.yaml",
                "its example in `tests/architecture/features/`",
                "",
                'regions: {cn: {quiet: {hours: "06:00-22:00", timezone: UTC, text: {en: Good night.}}}}\n',
                f"{_FEATURES}::test_each_folder_is_in_each_list",
            ),
        ),
        ". If it keeps data or runs: `feature.py` (a `Feature`), and its entry in `gateway/features/running.py`",
        (_FEATURES, _TABLES, "tests/gateway/console/test_duties.py", "tests/docs/test_generated_files.py"),
        own=("gateway/features/quiet/", "tests/architecture/features/quiet.yaml"),
    ),
}


def rows() -> dict[str, str]:
    """Return the rows of the page by the cell that begins each."""
    return {f"| {addition.title} |": addition.row for addition in ADDITIONS.values()}


def copy_of_the_repository(tree: Path) -> None:
    """Copy all files that are kept, as they are now."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def add(addition: Addition, tree: Path, without: Place | Slip | None = None) -> None:
    """Make an addition in a copy, but for one place or for what is forgotten there, and write the generated files."""
    for number, place in enumerate(addition.places):
        if isinstance(without, Slip) and without.place == number:
            place.write(tree, place.text.replace(without.forgotten, ""))
        elif place is not without:
            place.write(tree, place.text)
    _install(tree)
    run(["-m", "scripts.generate"], tree)


def _install(tree: Path) -> None:
    """Make the new entry points of a copy known, as an installation does."""
    here, there = (
        tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"] for root in (ROOT, tree)
    )
    new = {group: there[group].items() - here[group].items() for group in there}
    facts = tree / f"copy-1{_FACTS}"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: copy\nVersion: 1\n", "utf-8")
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in it) for group, it in new.items() if it
    ]
    (facts / "entry_points.txt").write_text("".join(sections), "utf-8")


def freeze(tree: Path) -> None:
    """Write the frozen files of a copy."""
    run_tests([_FROZEN], tree, WRITE="1")


def run(command: Sequence[str], tree: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment in the copy."""
    known = {**os.environ, "PYTHONPATH": str(tree), **environ}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tree, env=known, check=False)


def run_tests(tests: Sequence[str], tree: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run tests of the copy there."""
    return run(["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests], tree, **environ)


def changed_in(tree: Path) -> Iterator[str]:
    """Yield the files of a copy that differ from those of the repository."""
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree)
        if path.is_file() and not any(part in _MADE or part.endswith(_FACTS) for part in name.parts):
            known = ROOT / name
            if not known.is_file() or known.read_bytes() != path.read_bytes():
                yield str(name)


def main() -> int:
    """Make the addition that the command line names, and run the tests next to it."""
    addition = ADDITIONS[sys.argv[1]]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_of_the_repository(tree)
        add(addition, tree)
        freeze(tree)
        done = run_tests(addition.near, tree)
        changed = [*changed_in(tree)]
    by_hand = {place.file for place in addition.places}
    print(
        f"{addition.title}: {len(by_hand)} files by hand, {len(set(changed) - by_hand)} by commands",
        *changed,
        sep="\n  ",
    )
    print(done.stdout)
    return done.returncode or int(len(by_hand) > addition.most)


if __name__ == "__main__":
    sys.exit(main())
