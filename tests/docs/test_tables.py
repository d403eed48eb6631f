"""The tables of the pages match the code: headers, errors, failures, reasons, keys of the config and of dialects."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import get_type_hints

import pytest
from openai._constants import MAX_RETRY_AFTER_DELAY
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from gateway.api.admin_guard import Guard
from gateway.api.admin_routes import build_admin_routes
from gateway.api.connection import Close
from gateway.api.errors import from_domain
from gateway.api.websocket import session
from gateway.config.examples import example_names
from gateway.config.shape import UNSUPPORTED_KEYS
from gateway.execution.retry import FLOOR, WINDOW_S, FailureRule, rule_of
from gateway.execution.run import PlanExhausted
from gateway.features.configuration import GatewayFile
from gateway.model.decision import SkipReason
from gateway.model.location_rules import LocationRules
from gateway.model.record import AttemptAction, AttemptDecision, AttemptRecord, Bound, DecisionReason
from gateway.model.refusal_reason import RESERVED, RefusalReason
from gateway.model.resilience import DEFAULT_MAX_OPEN, Resilience
from gateway.model.section import default_as_written
from gateway.policy.location import SIGNALS
from gateway.public_names import ERRORS, LOG_FIELDS, RECEIPT_FIELDS, REQUEST_HEADERS, RESPONSE_HEADERS, names_in
from gateway.state.receipts import _NO_NOTES, receipt_of
from gateway.telemetry import request_log
from providers.catalogue.toml_schema import check_table, shapes_of
from providers.compatible import dialect
from providers.compatible.dialect import DIALECT, Prefill, Requests, Thinking
from providers.failures import Failure, FailureKind
from providers.matching.requirements import FEATURES, PARAMETERS
from providers.openai_json.read_answer import Answers
from providers.reading.errors import SHAPES, ErrorRules
from scripts.dialect_keys import dialect_page
from tests.architecture.source_tree import PACKAGES
from tests.kit.console_pages import control_of, demo_config
from tests.kit.doc_pages import ROOT, docs_table, table_of

LOCATION = ROOT / "docs" / "operate" / "location.md"
CONFIG_FILE = ROOT / "docs" / "operate" / "config-file.md"
FIRST_CONFIG = ROOT / "docs" / "operate" / "first-config.md"
FAILURES = ROOT / "docs" / "operate" / "failures.md"
LOG_PAGE = ROOT / "docs" / "reference" / "log-fields.md"
BREAKERS = ROOT / "docs" / "operate" / "breakers.md"
TROUBLESHOOTING = ROOT / "docs" / "operate" / "troubleshooting.md"
ERROR_PAGE = ROOT / "docs" / "reference" / "errors.md"
CONTRACT = ROOT / "docs" / "extend" / "contract.md"
VENDOR_FOLDER = ROOT / "docs" / "extend" / "vendor-folder.md"
COMPATIBLE_VENDORS = ROOT / "docs" / "extend" / "compatible-vendors.md"
_CODE = re.compile(r"`([^`]+)`")
_OURS = re.compile(
    r"(x-(gateway|request|api|should|ratelimit)-[a-z-]+|authorization|retry-after|location|server-timing"
    r"|traceparent|tracestate|link|openai-processing-ms|api-key|x-goog-api-key)"
)


def words(cell: str) -> list[str]:
    """Return the code spans of a cell."""
    return _CODE.findall(cell)


def first_words(rows: Iterable[list[str]]) -> list[str]:
    return [word for row in rows for word in words(row[0])]


def test_headers_are_those_of_the_api() -> None:
    named: set[str] = set()
    gateway = ROOT / "gateway"
    for path in [path for folder in ("api", "policy", "features") for path in (gateway / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                # A header that is written as a line has its value after it.
                text = re.split(": ?", text, maxsplit=1)[0]
                names = [text.replace("%b", unit) for unit in ("requests", "tokens")]
                named.update(name for name in names if _OURS.fullmatch(name))
    assert {*names_in(REQUEST_HEADERS), *names_in(RESPONSE_HEADERS)} == named, "gateway/public_names.json"


def test_signals_are_those_of_the_registry_with_their_fixed_headers() -> None:
    rows = {words(row[0])[0]: words(" ".join(row[1:])) for row in table_of(LOCATION, "| signal | source")}
    assert list(rows) == [*SIGNALS]
    for name, documented in rows.items():
        assert {word for word in documented if word.startswith("x-")} == {*SIGNALS[name].headers(LocationRules())}


def test_error_codes_are_those_of_the_api() -> None:
    """Each is raised somewhere, and each that is raised is known. Each reason is a heading of the page."""
    sources = [path.read_text("utf-8") for path in (ROOT / "gateway").rglob("*.py")]
    raised = {code for text in sources for code in re.findall(r'ApiError\(\s*"(\w+)"', text)}
    assert raised <= {*ERRORS}, "gateway/public_names.json"
    named = {word for text in sources for word in re.findall(r'"(\w+)"', text)}
    assert {*ERRORS} - named == set()
    text = ERROR_PAGE.read_text("utf-8")
    reasons = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert {*reasons} == {row["reason"] for row in ERRORS.values()}
    assert sorted([*reasons, *RESERVED]) == sorted(RefusalReason)
    assert all(f"`{reason}`" in text for reason in RESERVED)


def test_longest_wait_of_the_sdk_is_that_of_its_source() -> None:
    rows = docs_table("| SDK | longest wait |")
    assert [row[1] for row in rows if row[0].startswith("OpenAI for Python")] == [f"{MAX_RETRY_AFTER_DELAY} s"]


def test_request_fields_are_those_of_the_sdk() -> None:
    documented = first_words(docs_table("| field | result |"))
    assert sorted(documented) == sorted(get_type_hints(CompletionCreateParamsStreaming))


def test_receipt_fields_are_the_keys_of_a_receipt() -> None:
    tree = ast.parse(inspect.getsource(receipt_of))
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    items = [
        item for value in returned if isinstance(value, ast.Dict) for item in zip(value.keys, value.values, strict=True)
    ]
    # The notes of features are unpacked into the dictionary.
    named = [name for key, _ in items for name in ([ast.literal_eval(key)] if key else _NO_NOTES)]
    assert [*names_in(RECEIPT_FIELDS)] == named, "gateway/public_names.json"


def test_fields_of_the_log_line_are_in_their_table() -> None:
    """A further word of a meaning may be a field too. An attempt has fields of its own."""
    tree = ast.parse(inspect.getsource(request_log))
    functions = [it for it in tree.body if isinstance(it, ast.FunctionDef) and it.name != "_attempt"]
    nodes = [node for it in functions for node in ast.walk(it) if isinstance(node, ast.Subscript)]
    keys = [node.slice.value for node in nodes if isinstance(node.slice, ast.Constant)]
    written = {key for key in keys if isinstance(key, str)} | {*request_log._SHARED}
    described = {word for row in LOG_FIELDS.values() for word in words(row["meaning"])}
    assert written <= {*names_in(LOG_FIELDS)} | described, "gateway/public_names.json"
    documented = first_words(docs_table("| fields |"))
    assert written <= {*documented} | described, "run make generate"


def test_messages_of_a_websocket_are_those_that_are_taken() -> None:
    rows = docs_table("| message of the client |")
    assert [name for row in rows for name in re.findall(r'"type": "([\w.]+)"', row[0])] == [*session._TAKES]
    # A connection that is lost has no code of its own, and an internal error shows nothing to a client.
    shown = {int(code) for row in docs_table("| close code |") for code in re.findall(r"\d{4}", row[0])}
    assert shown == {it.code for it in Close} - {Close.LOST.code, Close.ERROR.code}


def test_limits_are_those_of_the_schema() -> None:
    defaults = default_as_written(Resilience())
    text = FAILURES.read_text("utf-8")
    attempts = defaults["attempts"]
    assert f"attempts: {{per_deployment: {attempts['per_deployment']}, total: {attempts['total']}}}" in text
    breaker = ", ".join(f"{name}: {value}" for name, value in defaults["breaker"].items())
    assert f"  breaker: {{{breaker}}}\n" in text
    for name in set(defaults) - {"attempts", "breaker"}:
        assert f"  {name}: {defaults[name]}\n" in text
    assert f"requests of the last {WINDOW_S:g} s, plus {FLOOR}." in text
    assert f"{defaults['retry_budget']} (`retry_budget`)" in text
    text = " ".join(BREAKERS.read_text("utf-8").split())
    assert f"`max_open` (default: {DEFAULT_MAX_OPEN} times `open`)" in text
    told = [("failures", "{} requests"), ("rate", "{}"), ("samples", "{} calls"), ("window", "{}"), ("open", "{}")]
    for name, form in told:
        assert f"{form.format(defaults['breaker'][name])} (`{name}`)".replace("0s (", "0 s (") in text, name


def test_examples_are_those_of_the_init_command() -> None:
    assert sorted(first_words(table_of(FIRST_CONFIG, "| example | set-up"))) == example_names()


def test_every_refused_key_is_documented() -> None:
    refused = CONFIG_FILE.read_text("utf-8").split("## Keys that this version refuses")[1].split("\n## ")[0]
    assert set(words(refused)) == UNSUPPORTED_KEYS


def test_signals_and_reasons_are_those_of_routing() -> None:
    assert first_words(table_of(ROOT / "docs" / "operate" / "check-and-explain.md", "| reason | meaning")) == [
        str(reason) for reason in SkipReason
    ]
    signals = first_words(table_of(LOCATION, "| signal | source"))
    assert signals == list(GatewayFile.model_fields["location"].default.signals)


def test_reactions_to_failures_are_those_of_the_code() -> None:
    rows = table_of(FAILURES, "| failure | kind")
    assert [words(row[1])[0] for row in rows] == [*FailureKind]
    for _, kind, again, onward, benched, counts, client in rows:
        rule = rule_of(Failure(FailureKind(words(kind)[0]), "m"))
        assert (again == "yes", onward.startswith("yes")) == (rule.retry_here, rule.next_step), kind
        assert benched == _cooldown_text(rule), kind
        assert (counts == "counts") is rule.counts, kind
        failure = Failure(FailureKind(words(kind)[0]), "m")
        shown = from_domain(PlanExhausted(failure), [AttemptRecord("d", "p", "m", 0.1, failure)])
        assert client == f"{shown.status} `{shown.code}`", kind


def test_decisions_after_failures_are_those_of_the_code() -> None:
    reasons = [word for row in table_of(LOG_PAGE, "| decision reason | meaning") for word in words(row[0])]
    assert sorted(reasons) == sorted([*DecisionReason])
    rows = {word: row[1] for row in table_of(LOG_PAGE, "| field | content") for word in words(row[0])}
    assert words(rows["decision"]) == [*AttemptAction]
    decision = AttemptDecision(AttemptAction.RETRY, DecisionReason.NAMED_WAIT, 1.0, Bound("deadline", 2.0))
    failure = Failure(FailureKind.RATE_LIMITED, "m", retry_after_s=1.0, rule="r")
    assert [*rows] == [*AttemptRecord("d", "p", "m", 0.1, failure, decision=decision).decision_fields()]


def _cooldown_text(rule: FailureRule) -> str:
    fixed = f"{rule.cooldown_s:g} s" if rule.cooldown_s is not None else ""
    named = "the named time" if rule.cooldown_named_time else ""
    return ", or ".join(filter(None, (fixed, named)))


def test_capability_words_are_all_documented() -> None:
    assert set(first_words(table_of(CONTRACT, "| feature |"))) == FEATURES
    tuning = CONTRACT.read_text("utf-8").split("A parameter only tunes:")[1].split(". One that")[0]
    assert set(words(tuning)) == PARAMETERS


def test_tables_of_a_vendor_file_are_those_that_are_read() -> None:
    documented = {cells[0]: words(cells[2]) for cells in table_of(COMPATIBLE_VENDORS, "| table | content")}
    named = [name for table, [name] in documented.items() if "[dialect" in table and "/" not in name]
    tables = {field.name.capitalize() for field in dataclasses.fields(dialect.CompatibleDialect)}
    assert sorted(named) == sorted(
        {name for name in tables if hasattr(dialect, name)} - {"Capabilities"} | {"CompatibleDialect"}
    )


def test_members_of_the_errors_of_a_vendor_are_documented() -> None:
    section = COMPATIBLE_VENDORS.read_text("utf-8").split("\n## Errors\n")[1].split("\n## ")[0]
    assert {field.name for field in dataclasses.fields(ErrorRules)} <= set(words(section))


def test_files_of_a_vendor_folder_are_those_of_the_repository() -> None:
    folders = {path.parent.name: path.parent for path in (ROOT / "providers" / "vendors").glob("*/__init__.py")}
    files = {(name, file.name) for name, folder in folders.items() for file in folder.iterdir() if file.is_file()}
    documented: set[tuple[str, str]] = set()
    for pattern, _, where in table_of(VENDOR_FOLDER, "| file | content | folders |"):
        named = set(words(where))
        having = folders.keys() - named if where.startswith("all") else named
        [glob] = words(pattern)
        found = {(name, file) for name, file in files if fnmatch(file, glob.replace("NAME.toml", "*.toml"))}
        assert {name for name, _ in found} == having, f"docs/extend/vendor-folder.md: correct the folders of `{glob}`"
        documented |= found
    assert not files - documented, "docs/extend/vendor-folder.md: add these files to the table of a vendor's folder"


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    texts = [f"unknown {section}" for section in ("assistant", "deployment", "region")]  # by `check_reference`
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    known = "\n".join(texts)
    lines = TROUBLESHOOTING.read_text("utf-8").splitlines()
    symptoms = [line.split("|")[1] for line in lines if line.startswith("| ") and line.count("|") == 4]
    named = [word for cell in symptoms for word in words(cell)]
    assert len(named) > 25
    for name in named:
        assert all(part in known for part in name.split("…")), name


def test_page_of_the_admin_listener_names_every_route_of_its_own() -> None:
    page = (ROOT / "docs" / "operate" / "admin-listener.md").read_text("utf-8")
    routes = build_admin_routes(control_of(demo_config()), Guard(), {}).openapi()["paths"]
    ends = [path for path in routes if not path.startswith("/v1/admin")]
    assert len(ends) >= 8
    assert [end for end in ends if re.search(rf"{re.escape(end)}[`?]", page) is None] == []


def test_each_line_of_the_laws_has_a_source_and_its_day() -> None:
    lines = (ROOT / "docs/prove/laws.md").read_text("utf-8").splitlines()
    sources = [
        line.strip("| ").split(" | ")[-1] for line in lines if line.startswith("| ") and "| source |" not in line
    ]
    assert len(sources) > 10
    assert [source for source in sources if re.search(r"\S, 20\d\d-\d\d-\d\d$", source) is None] == []


KNOWN = {
    "dialect": DIALECT,
    "dialect.request": shapes_of(Requests),
    "dialect.request.prefill": shapes_of(Prefill),
    "dialect.thinking.NAME": shapes_of(Thinking),
    "dialect.answer": shapes_of(Answers),
    "dialect.errors": SHAPES,
}
TABLES = dict(re.findall(r"^## `\[(.*?)\]`\n\n((?:\|.*\n)+)", dialect_page(), re.MULTILINE))


@pytest.mark.parametrize("table", KNOWN)
def test_every_key_has_a_type_a_meaning_and_a_valid_example(table: str) -> None:
    rows = [re.split(r"(?<!\\) ?\| ?", row)[1:-1] for row in TABLES[table].splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == list(KNOWN[table])
    for key, kind, meaning, example in rows:
        assert kind, key
        assert meaning.endswith("."), key
        check_table(table, tomllib.loads(example.strip("`").replace("\\|", "|")), KNOWN[table])
