"""Words in outputs of the process that the code takes from the names of classes and fields.

Some code reflects on dataclasses: a field's name becomes a key of a log line, a word of a plan, a column of a file or a
part of a signed token. Renaming such a field would change what clients, dashboards and stored files contain, and no
type checker would report it. Each case below writes such an output for fixed input and compares it with a file in
`frozen/`.

If a case fails after a rename, keep the old word in the output. Change the file only if the change is intended, and
write it in the changelog. This command writes the files from the current output:

    WRITE=1 .venv/bin/python -m pytest tests/architecture/test_frozen_words.py
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from evaluation.asking import QuestionResult
from evaluation.checks import RecordedAnswer
from evaluation.decision import Recommendation, Score
from evaluation.figures import Requirement
from evaluation.load import Load, LoadStep
from evaluation.statistics import Comparison, Estimate
from evaluation.store import RunStore
from gateway.api.admin_control import readiness
from gateway.changes.activation import changes_between
from gateway.changes.plan import NO_CONFIG_VERSION, ChangePlan, changed_values, plan_of, with_traffic
from gateway.changes.plan_checks import checks_of
from gateway.changes.plan_text import plan_data, plan_markdown, plan_summary, plan_text
from gateway.config.yaml_document import parse_yaml
from gateway.features.configuration import schema_json
from gateway.features.shadow.model import ShadowNote, ShadowRecord
from gateway.features.shadow.state import ShadowStore
from gateway.model.caller import TraceContext
from gateway.model.config_version import ConfigVersion
from gateway.model.consent import ConsentKind, ConsentStatement
from gateway.model.decision import RefusalCode, SkipReason, Unavailable
from gateway.model.location import Location, LocationProblem
from gateway.model.record import (
    AttemptAction,
    AttemptDecision,
    AttemptRecord,
    Bound,
    DecisionReason,
    Record,
    Resumed,
    Skipped,
)
from gateway.model.refusal_reason import REASON_BY_CODE, STATUS, RefusalReason
from gateway.model.schedule import Phase, Schedule, ScheduleProgress, ScheduleStatus, Stage, StopRule, Tally
from gateway.model.status import Changes, Finding, Reload, Status, WorkerStatus
from gateway.policy.consent import Consenting
from gateway.policy.territory_answers import answer_changes
from gateway.policy.transcript import transcript
from gateway.settings import Settings
from gateway.state.receipts import receipt_of
from gateway.state.schedules import ScheduleStore
from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS
from gateway.telemetry.request_log import JsonLines
from providers.adapter import Capabilities
from providers.catalogue.prices import Price, Rates
from providers.chat import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonSchemaFormat,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from providers.failures import Failure, FailureKind
from providers.matching.requirements import requirements_of
from tests.architecture import promised_names
from tests.architecture.compact_json import compact
from tests.kit.configs import table_of
from tests.kit.expected_files import expected_text
from tests.kit.request_records import record_with, with_fields

FROZEN = Path(__file__).parent / "frozen"
NOW_S = datetime(2026, 11, 20, 12, 30, 0, 250_000, UTC).timestamp()

# Two configs that differ in everything that a plan or the log line of a reload can name.
OLD = """
version: 1
assistants: {assistant: {routes: {de: [first, second], default: [second], us: [first]}}}
regions:
  de: {territories: [DE], boundary: [DE]}
  us: {territories: [US], boundary: ["*"]}
  default: {territories: ["*"], boundary: ["*"]}
deployments:
  first: {provider: openai-compatible, model: m-1, endpoint: "https://first.example/v1", stores: DE, processes: DE}
  second: {provider: openai-compatible, model: m-2, endpoint: "https://second.example/v1", stores: DE, processes: DE}
"""
NEW = f"""
version: 1
cell: {{territory: DE, serves: [de, fr, default], homes: {{us: "https://us.example"}}}}
assistants:
  assistant:
    aliases: [gpt]
    reveal_model: false
    routes:
      de: [{{first: 90, third: 10}}, second]
      default: [third, second]
      fr: [third]
      us: [third]
    schedules: {{de: {{candidate: third, steps: "10% for 1h, 100%"}}}}
    shadow: {{default: {{deployment: second, share: 5%, keep_text: true}}}}
    resume: true
regions:
  de:
    territories: [DE]
    boundary: ["@EEA"]
    approvals: required
    protected: true
    log_prompts: true
    labels: [eu-art50]
    profile: {{locale: de-DE}}
  fr: {{territories: [FR], boundary: [DE]}}
  us: {{territories: [US], boundary: ["*", "!CN"], transit: [DE]}}
  default: {{territories: ["*"], boundary: ["*"]}}
blocked: [KP]
blocked_by: https://operator.example/why
deployments:
  first:
    provider: openai-compatible
    model: m-7
    endpoint: "https://other.example/v1"
    stores: DE
    processes: DE
    api_key: "${{KEY}}"
    available: [DE]
    unsupported: refuse
    passthrough: [documents]
    fold: true
    first_token: 5s
    approvals:
      - {{region: de, authority: BSI, kind: registration, number: "7", model_name: Luna, valid_until: 2027-03-01}}
    consent: {{mode: per_request, on_missing: skip, recipient: OpenAI}}
    identity: hash
    concurrency: {{limit: 7, queue: 3, wait: 1s}}
    enabled: false
  second:
    provider: openai-compatible
    model: m-2
    endpoint: "https://second.example/v1"
    stores: [DE, FR]
    processes: [DE, FR]
    capabilities: [tools]
  third: {{provider: openai-compatible, model: m-3, endpoint: "https://third.example/v1", stores: DE, processes: DE}}
clients: {{app: {{keys: ["sha256:{"a" * 64}"], limits: {{rpm: 60}}}}}}
exporters: {{traces: {{endpoint: "http://127.0.0.1:1/v1/traces", stores: DE, processes: DE, regions: [de]}}}}
secrets: {{consent: "${{SECRET}}", identity: "${{SECRET}}"}}
cors: {{origins: ["https://app.example"]}}
location: {{unknown: default}}
resilience: {{idle: 5s}}
admin_keys: ["ed25519:{"A" * 43}="]
receipts: {{keep: 7d}}
"""
ENVIRON = {"KEY": "sk-secret", "SECRET": "s" * 44}


def _tables() -> tuple[ConfigVersion, ConfigVersion]:
    """Return both configs. In the second, a deployment also has facts that only a vendor's catalogue provides."""
    old, new = table_of(OLD, ENVIRON), table_of(NEW, ENVIRON)
    before = replace(old.deployments["first"], capabilities=Capabilities(frozenset({"tools"}), frozenset()))
    first = replace(
        new.deployments["first"],
        provider="openai",
        allowed_moves=frozenset({"metadata"}),
        capabilities=Capabilities(frozenset({"tools", "vision"}), frozenset({"seed"}), 1000),
        excepts=frozenset({"web_search"}),
        unmet=("a contract",),
        simulates="eu",
    )
    old = replace(old, deployments={**old.deployments, "first": before})
    return old, replace(new, deployments={**new.deployments, "first": first})


def _plan() -> ChangePlan:
    old, new = _tables()
    before, after = (parse_yaml(dedent(text).encode(), "test.yaml").values for text in (OLD, NEW))
    plan = plan_of(old, new, tuple(changed_values(before, after)))
    plan = replace(plan, answers=answer_changes(old, new, NOW_S), checks=checks_of(old, new, (), NOW_S))
    return with_traffic(plan, {("assistant", "de"): 30.0, ("assistant", "default"): 10.0})


def plan_json() -> object:
    """Return the output of `gateway plan --json`, which the history stores too."""
    return plan_data(_plan())


def plan_as_text() -> str:
    """Return the output of `gateway plan`, and the plan of a first start in one line."""
    return (
        f"{plan_text(_plan())}\n\n{plan_summary(_plan())}\n{plan_summary(plan_of(NO_CONFIG_VERSION, _tables()[0]))}\n"
    )


def plan_as_markdown() -> str:
    """Return the output of `gateway plan --markdown`."""
    return f"{plan_markdown(_plan())}\n"


def config_changes() -> object:
    """Return the fields of the log line `config_activated` that describe a change."""
    changes = changes_between(*_tables())
    return {word.name: list(getattr(changes, word.name)) for word in fields(changes)}


def config_keys() -> object:
    """Return every key of a config file."""
    return sorted(set(_keys_of(json.loads(schema_json()))))


def _keys_of(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from _keys_of(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _keys_of(part)


def settings() -> object:
    """Return the environment variables of a process."""
    return sorted(f"GATEWAY_{name.upper()}" for name in Settings.model_fields)


# --- a finished request ---------------------------------------------------------------------------


def _plain_record() -> Record:
    """Return the record of a simple answer by one attempt. The log has a fast path for it."""
    region = _tables()[0].regions["de"]
    return record_with(
        "req_1",
        100.0,
        "0123456789ab",
        trace=TraceContext("a" * 32, "b" * 16, True),
        client="app",
        location=Location(region, "DE", "edge_header", ()),
        assistant="assistant",
        deployment="first",
        provider="openai",
        model="m-1",
        stream=True,
        status=200,
        first_s=0.25,
        total_s=0.5,
        attempts=[AttemptRecord("first", "openai", "m-1", 0.2, None, 100.1, ("DE", "FR"), consent=ConsentKind.TOKEN)],
        variant="first",
        dropped=frozenset({"seed"}),
        labels=("eu-art50",),
        profile="de-DE",
        usage=Usage(1, 2, 3, 4, 5, 6, 7, 8),
        places=("DE", "FR"),
        price=Price(Rates(1, 2), "USD", date(2026, 1, 1), "https://example.com"),
        cost_micros=9,
    )


def _eventful_record() -> Record:
    """Return the record of a request with every field that a record can hold."""
    failure = Failure(FailureKind.OVERLOADED, "told", "detail", 503, code="busy", retry_after_s=1.5, request_id="up-1")
    decision = AttemptDecision(AttemptAction.RETRY, DecisionReason.NAMED_WAIT, 1.5, Bound("failover_after", 2.0))
    failed = AttemptRecord("second", "openai", "m-2", 0.1, failure, 100.0, ("DE", "DE"), decision=decision)
    return with_fields(
        _plain_record(),
        outcome="interrupted",
        code="provider_error",
        detail="broke off",
        upload_s=0.1,
        queued_s=0.3,
        attempts=[
            failed,
            AttemptRecord("third", "openai", "m-3", 0.1, None, 100.0, ("DE", "DE")),
            *_plain_record().attempts,
        ],
        skipped=[Skipped("fourth", "open")],
        shed=(("fifth", "queue_full"),),
        retries_refused=("second",),
        resumed=Resumed("second", "first"),
        notes=(ShadowNote(AttemptRecord("sixth", "openai", "m-6", 0.0, None, 100.0, ("US", "US"))),),
        abandoned=(AttemptRecord("seventh", "openai", "m-7", 0.0, None, 100.0, ("US", "US"), is_abandoned=True),),
    )


def request_log() -> str:
    """Return the log line of a finished request, by the fast path and by the general one."""
    lines = JsonLines().of([(_plain_record(), NOW_S), (_eventful_record(), NOW_S)])
    return b"\n".join([*lines, b""]).decode()


def receipt() -> object:
    """Return the receipt of a request, as it is stored, signed and shown."""
    return receipt_of(_eventful_record(), NOW_S, "DE")


def metrics() -> object:
    """Return every metric with its kind and its labels."""
    return {name: [family.kind, *family.labels] for name, family in METRIC_DEFINITIONS.items()}


def codes() -> object:
    """Return the words for reasons in errors, log lines, metrics and receipts."""
    return {
        "error codes": STATUS,
        "failure": [*FailureKind],
        "action after a failure": [*AttemptAction],
        "reason of the action": [*DecisionReason],
        "reason of an error": REASON_BY_CODE,
        "reasons": [*RefusalReason],
        "refusal": [*RefusalCode],
        "passed over": [*SkipReason],
        "location": [*LocationProblem],
        "consent": [*ConsentKind],
        "schedule": [*Phase],
    }


# --- consent --------------------------------------------------------------------------------------


def _request() -> ChatRequest:
    """Return a request with every kind of message and part."""
    parts = (
        TextPart("a secret"),
        ImagePart("data:image/png;base64,aa", "low"),
        AudioPart("aa", "wav"),
        FilePart("data:application/pdf;base64,aa", "a.pdf"),
    )
    return ChatRequest(
        "assistant",
        (
            SystemMessage("Be brief."),
            UserMessage(parts, name="me"),
            AssistantMessage("thinking", reasoning="hm", tool_calls=(ToolCall("c1", "find", "{}", "sig"),)),
            ToolMessage("c1", "found"),
            UserMessage("and now?"),
        ),
        tools=(Tool("find", "finds", {"type": "object"}, True),),
        response_format=JsonSchemaFormat("shape", {"type": "object"}, "a shape", True),
        user="u-1",
        extra={"documents": [1]},
    )


def consent_token() -> object:
    """A token is a MAC over the names of message classes and their fields. It must survive an upgrade of the gateway."""
    table = table_of(NEW, ENVIRON)
    request = _request()
    consenting = Consenting(
        ConsentStatement(caller="me"), request, requirements_of(request), (b"k" * 32,), 1_800_000_000.0
    )
    asked = consenting.ask(table.deployments["first"], table.regions["de"])
    return {word.name: getattr(asked, word.name) for word in fields(asked)}


def prompt_transcript() -> str:
    """Return the prompt as a shadow and the log store it."""
    return f"{transcript(_request())}\n"


# --- processes and files --------------------------------------------------------------------------


def readiness_report() -> object:
    """Return `GET /readyz` of the admin listener."""
    table = replace(table_of(NEW, ENVIRON), version="0123456789ab")
    finding = Finding("warning", "gateway.yaml", 3, 5, "regions.de", "is odd", "change it")
    changes = Changes(("added",), ("removed",), ("changed",), ("assistant/de",), ("clients",))
    at = datetime.fromtimestamp(NOW_S, UTC)
    loaded = Reload("file", True, table.version, at, 0.5, (finding,), changes, (1,), "me")
    progress = ScheduleProgress(Phase.RUNNING, 0, 5.0, Tally(3, 1), Tally(7, 0), 2, 4, "a reason")
    schedule = Schedule("third", (Stage(0.1, 3600.0), Stage(1.0, None)), StopRule(), "abcdef")
    unwell = {"first": Unavailable("refused", 2.0), "second": Unavailable("open", 1.0, False, True)}
    status = Status(
        table,
        loaded,
        replace(loaded, activated=False, retriable=True),
        {("file", "activated"): 1},
        False,
        (WorkerStatus(1, 77, table.version, 5, False, unwell),),
        schedules=(ScheduleStatus("assistant", "de", schedule, progress, 0.1, "more requests"),),
        keeps_history=True,
        at_s=NOW_S,
    )
    return readiness(status)


def schedule_progress(folder: Path) -> object:
    """Return a row of `canary.db`, which outlives an upgrade of the gateway."""
    store = ScheduleStore(folder)
    store.save(
        {
            ("assistant", "de"): (
                "abcdef",
                ScheduleProgress(Phase.ROLLED_BACK, 1, 5.0, Tally(3, 1), Tally(7), 2, 4, "w"),
            )
        },
        {},
    )
    store.close()
    found = _rows(folder / "canary.db", "schedules")
    return [row | {"progress": json.loads(row["progress"])} for row in found]


def shadow_rows(folder: Path) -> object:
    """Return the rows of `shadow.db` for one request with its texts."""
    record = ShadowRecord(
        *(1.5, "0123456789ab", "req_1", "assistant", "de", "first", "m-1", True, "ok", 0.25, 0.5),
        usage=Usage(1, 2),
        finish_reason="stop",
        answer_characters=3,
        tool_calls=1,
        beside="second",
        beside_first_s=0.3,
        beside_total_s=0.6,
        beside_usage=Usage(4, 5),
        prompt="user: hello",
        answer="hi",
        refusal="no",
        calls=(("find", "{}"),),
        beside_answer="hey",
    )
    store = ShadowStore(folder)
    store.store(record)
    store.close()
    tables = {name: _rows(folder / "shadow.db", name) for name in ("answers", "texts", "extras", "besides")}
    # `gateway evaluate --shadow` stores the record itself, with its fields as keys.
    return tables | {"fields in run.db": _names(ShadowRecord)}


def evaluation_rows(folder: Path) -> object:
    """Return the rows of `run.db`. An evaluation is resumed from them, also by a later version."""
    store = RunStore(folder, {"suite": "s"})
    answer = RecordedAnswer("hi", (ToolCall("c1", "find", "{}", "sig"),), "no", True, "tool_calls")
    store.add("first", "performance", "i-1", QuestionResult(1.5, answer, tokens=(1, 2), first_s=0.5, between_s=0.1))
    store.add(
        "first", "performance", "i-2", QuestionResult(1.5, None, "overloaded", "busy", 503, first_failure="quota")
    )
    store.close()
    return [row | {"value": json.loads(row["value"])} for row in _rows(folder / "run.db", "answer")]


def evaluation_report() -> object:
    """Return the parts of `report.json` whose keys are the fields of a class."""
    return {
        "comparison": _names(Comparison),
        "estimate": _names(Estimate),
        "load": _names(Load),
        "load step": _names(LoadStep),
        "recommendation": _names(Recommendation),
        "requirement": _names(Requirement),
        "score": _names(Score),
    }


def _names(kind: Any) -> list[str]:
    return [word.name for word in fields(kind)]


def _rows(path: Path, table: str) -> list[dict[str, Any]]:
    database = sqlite3.connect(path)
    database.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in database.execute(f"SELECT * FROM {table}")]  # noqa: S608  # a constant
    finally:
        database.close()


# --- the comparison -------------------------------------------------------------------------------

CASES: dict[str, Callable[..., object]] = {
    "codes.json": codes,
    "commands.json": promised_names.commands,
    "config_changes.json": config_changes,
    "config_keys.json": config_keys,
    "consent_token.json": consent_token,
    "database.json": promised_names.database,
    "evaluation_report.json": evaluation_report,
    "evaluation_rows.json": evaluation_rows,
    "http.json": promised_names.http,
    "metrics.json": metrics,
    "plan.json": plan_json,
    "plan.md": plan_as_markdown,
    "plan.txt": plan_as_text,
    "plug_in.json": promised_names.plug_in,
    "prompt_transcript.txt": prompt_transcript,
    "readiness.json": readiness_report,
    "receipt.json": receipt,
    "request_log.txt": request_log,
    "schedule_progress.json": schedule_progress,
    "settings.json": settings,
    "shadow_rows.json": shadow_rows,
}


def text_of(case: str, folder: Path) -> str:
    """Return the current output of a case in the form of its file."""
    write = CASES[case]
    found = write(folder) if "folder" in write.__annotations__ else write()
    return found if isinstance(found, str) else compact(json.dumps(found, ensure_ascii=False))


@pytest.mark.parametrize("case", CASES)
def test_output_has_the_frozen_words(case: str, tmp_path: Path) -> None:
    found, path = text_of(case, tmp_path), FROZEN / case
    assert found == expected_text(path, found), (
        f"the output is not that of tests/architecture/frozen/{case}: keep the old words in the output. If the change "
        "is intended, write it in CHANGELOG.md, and write the file with\n"
        f"  WRITE=1 .venv/bin/python -m pytest tests/architecture/test_frozen_words.py -k {case}"
    )


def test_every_frozen_file_has_a_case() -> None:
    assert {path.name for path in FROZEN.iterdir()} - {"expressions.txt"} == set(CASES), "or a test of its own"
