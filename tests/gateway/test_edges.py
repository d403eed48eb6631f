"""Bounds of the gateway at their edges. Those that need a whole gateway are tested with what they bound."""

import asyncio
import json
import re
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock, patch

import pytest

from gateway import clock_skew, geoip
from gateway.api import admin_config, admin_request, body, compressed_body
from gateway.api.caller import authentication, request_headers
from gateway.api.dialects import schema
from gateway.api.dialects.gemini import contents
from gateway.api.dialects.gemini import decode as gemini_decode
from gateway.api.dialects.gemini.fields import DroppedFields
from gateway.api.dialects.messages import decode as messages_decode
from gateway.api.dialects.messages import encode as messages_encode
from gateway.api.dialects.responses import decode as responses_decode
from gateway.api.dialects.responses import echo, tools
from gateway.api.errors import ApiError
from gateway.changes import plan_text
from gateway.changes.plan import Change, ChangePlan
from gateway.cli import arguments, exchange_log, provider_pages
from gateway.config import (
    age_bands,
    field_types,
    limits_report,
    region_text,
    secret_references,
    secrets_file,
    source_text,
    yaml_document,
)
from gateway.config.schema.location import AgeBandSection
from gateway.config.sensitive_keys import secret_names
from gateway.console import application, areas, clients_view, forms, page, sessions, visitors, world
from gateway.execution import failure_observations as evidence
from gateway.execution import hand_off_tool, health, json_schemas, judging, moderated_stream, redaction, transport
from gateway.features.crisis import config as crisis_config
from gateway.features.crisis import given_texts
from gateway.features.redaction import config as redaction_config
from gateway.features.redaction import wrapper
from gateway.features.redaction.policy import finding, placeholders
from gateway.features.shadow import traffic
from gateway.identity import client_tokens, token_refresher
from gateway.litellm import conversion
from gateway.model import budget as model_budget
from gateway.model.answer_change import AnswerChange
from gateway.model.status import OPERATOR_HEADER
from gateway.policy import labels
from gateway.policy.location import claim_verification, resolution
from gateway.policy.reasoning_seal import ReasoningSeal
from gateway.server import http_protocol, request_feed
from gateway.service import budget_admin, client_admin, issuer_keys, key_admin, location
from gateway.state import backup
from gateway.telemetry import trace_export
from gateway.telemetry.metrics import Metrics
from gateway.usage import amounts, estimates, holding, journal_file, ledger, ledger_writer
from gateway.usage.gate import HoldRefused
from providers.chat import TextDelta, Usage
from providers.territories import Places
from tests.kit.configs import BASE, KEYS, table_of
from tests.kit.edges import Edge, accepts, at_least, at_most, below, file_of

Fake: Any = SimpleNamespace
"""What a method of a large object reads of it."""
CODES = ("AT", "BE", "BG", "CY", "DE", "DK", "EE")


def receiving(document: object) -> Any:
    """Return the receive function of a request with this body."""
    return AsyncMock(return_value={"type": "http.request", "body": json.dumps(document).encode(), "more_body": False})


def clock() -> AsyncMock:
    return AsyncMock(return_value=0)


def moved(later_s: int) -> bool:
    console: Any = Fake(_control=Fake(clock=clock()))
    return accepts(asyncio.run, application.Console._move_clock(console, receiving({"later_s": later_s})))


def functions(number: int) -> list[dict[str, str]]:
    return [{"type": "function", "name": f"f{at}"} for at in range(number)]


def named(size: int) -> bool:
    who: Any = admin_request.Asked.who
    identity = Fake(token_id="", who="", how="")
    request = Fake(headers={OPERATOR_HEADER: "a" * size}, state=Fake(identity=identity))
    return accepts(who.fget, Fake(request=request))


def names_the_repeated(size: int) -> bool:
    try:
        body.check_names(b'{"a":1,"a":1'.ljust(size - 1) + b"}", {"a": 1})
    except ApiError as error:
        return error.param == "a"
    return False


def input_with(lists: int) -> object:
    """Return whether an input with this many lists may have as many bytes as one of tokens."""
    with patch.object(body, "parse_json", side_effect=lambda _, most_bytes: most_bytes == body.MAX_TOKENS_BYTES):
        return body.parse_input(b"[" + b",".join([b"[]"] * (lists - 1)) + b"]")


def expands(times: int) -> bool:
    deadline: Any = Fake(left_s=lambda committed: 1.0, limit=lambda limit_s: nullcontext())
    with (
        patch.object(compressed_body, "_pieces", lambda data, coding: [b"x" * times]),
        patch.object(compressed_body, "_LITTLE_BYTES", 0),
    ):
        return accepts(asyncio.run, compressed_body.decompress(b"x", "gzip", Fake(hold=AsyncMock()), deadline))


def calls_of(number: int) -> list[dict[str, Any]]:
    return [{"type": "tool_use", "id": f"c{at}", "name": "f", "input": {}} for at in range(number)]


def turn_with(calls: int) -> bool:
    """Return whether a turn of Anthropic's API may have so many calls."""
    results = [{"type": "tool_result", "tool_use_id": f"c{at}", "content": "ok"} for at in range(calls)]
    turns = [("user", "hi"), ("assistant", calls_of(calls)), ("user", results)]
    request = {"model": "m", "max_tokens": 9, "messages": [{"role": role, "content": it} for role, it in turns]}
    return accepts(messages_decode.decode_request, request)


def weights(largest: int) -> bool:
    members: Any = [Fake(name="a", index=0, weight=Decimal(largest))]
    assistants: Any = Fake(reading=Mock())
    return conversion._Assistants._weights(assistants, members)["a"] == largest


def silent(check: Any, *arguments: Any) -> bool:
    """Return whether a check reports nothing. Its first argument are the findings."""
    findings = Mock()
    list(check(findings, *arguments) or ())
    return not findings.error.called


def repeated_after(seconds: int) -> bool:
    compiler: Any = Fake(_draft=Mock())
    section: Any = Fake(repeat=seconds, repeat_text=None)
    region_text.RegionTextCompiler._check_repeat(compiler, (), section, "first_turn", seconds)
    return not compiler._draft.error.called


def secrets_of(versions: int = 1, size: int = 0) -> bool:
    texts = {name: [f"{number}".ljust(40, "k") for number in range(versions)] for name in secret_names()}
    text = json.dumps(texts).encode() + b"\n#"
    return not secrets_file.read_secrets_file(file_of(max(size, len(text)), text)).problem


SECRETS_BYTES = 2000


def counted(nodes: int) -> bool:
    builder: Any = Fake(_size=0, _fatal=lambda *_: ValueError())
    return accepts(yaml_document.Builder._count, builder, nodes, Fake(line=1, column=1))


def labelled(size: int) -> list[Any]:
    return [*areas._label_positions([Fake(radius=0, position=(0, 0), size=size, x=0, y=0)])]


def form_with(fields: int) -> int:
    part = '--b\r\ncontent-disposition: form-data; name="f{}"\r\n\r\nx\r\n'
    data = "".join(part.format(number) for number in range(fields)) + "--b--\r\n"
    return len(forms._parts("multipart/form-data; boundary=b", data.encode()))


def tables(known: int) -> int:
    pages: Any = Fake(_tables=dict.fromkeys(range(known)))
    with patch.object(page, "answers_of"):
        page.Pages._answers(pages, Fake(version="v", assistants={"a": None}), "a", 0.0)
    return len(pages._tables)


def kept(add: Any, number: int, held: Any) -> bool:
    """Return whether so many things are kept, one after another."""
    for at in range(number):
        add(at)
    return len(held()) == number


def sessions_of(number: int) -> bool:
    store = sessions.Sessions(lambda: 0.0)
    return kept(lambda at: store.begin("t"), number, lambda: store._sessions)


def addresses_of(number: int) -> bool:
    limit = sessions.FailureLimit(lambda: 0.0)
    return kept(lambda at: limit.note(str(at)), number, lambda: limit._failures)


def user_of_proxy(size: int) -> bool:
    access = Fake(user_header="u", groups_header="g", roles={"x": visitors._STRONGEST[0]})
    return accepts(visitors.Visitors._role_of_groups, Fake(access=access), {"u": ["a" * size], "g": ["x"]})


def observations(number: int) -> bool:
    shown: Any = Fake(_seen={}, _rule=Fake(failures=1))
    observe = evidence.FailureObservations._observe
    return kept(lambda at: observe(shown, (str(at),), b""), number, lambda: shown._seen)


def scopes(number: int) -> bool:
    shown: Any = Fake(_narrow={}, _rule=None, _draw=None, _on_change=None)
    with patch.object(evidence, "Breaker"), patch.object(evidence, "words_of"):
        return kept(lambda at: evidence.FailureObservations._add(shown, (str(at),)), number, lambda: shown._narrow)


def suspicions(number: int) -> bool:
    known: Any = Fake(suspicions={}, _clock=lambda: 0.0)
    with patch.object(health, "_key", lambda deployment, secret: deployment):
        suspect: Any = health.Health.suspect
        return kept(lambda at: suspect(known, at, None, ("a",), b"", 1.0, "why"), number, lambda: known.suspicions)


def held_text(size: int) -> bool:
    stream: Any = Fake(_has_text=False, _size=0)
    hand_off_tool.HeldStream._hold(stream, "x" * size)
    return not stream._has_text


def nested(depth: int) -> Any:
    inner: Any = {"type": "string"}
    for _ in range(depth - 1):
        inner = {"not": inner}
    return inner


def schemas(number: int) -> bool:
    with patch.dict(json_schemas._known, clear=True):
        return kept(
            lambda at: asyncio.run(json_schemas.answer_schema({"title": str(at)})), number, lambda: json_schemas._known
        )


def checked(size: int) -> bool:
    with patch.object(json_schemas, "_done", AsyncMock(return_value=None)):
        checker: Any = Fake(problem_within=None)
        return asyncio.run(json_schemas.AnswerSchema.problem_of(checker, "x" * size)) is None


def passed_texts(number: int) -> bool:
    texts: Any = Fake(_passed=OrderedDict(), _clock=lambda: 0.0)
    add: Any = judging.PassedTexts.add
    return kept(lambda at: add(texts, Fake(digest=lambda: at)), number, lambda: texts._passed)


def refusal_bytes(size: int) -> int:
    response: Any = Fake(read=AsyncMock(side_effect=[*[b"x"] * size, b""]), status=400, headers={}, received_at=0.0)
    limit: Any = nullcontext()
    return len(asyncio.run(transport.UpstreamResponse.read_refusal(response, limit)).body)


def without_numbers(territories: int) -> bool:
    findings = Mock()
    crisis_config._check_numbers(findings, (), Fake(included=CODES[:territories]), (), None)
    return " more" not in findings.error.call_args[0][1]


def given(number: int) -> bool:
    texts: Any = Fake(_gate=None, _clock=lambda: 0.0, _here=OrderedDict())
    texts._digests = lambda *_: {at: at for at in range(number)}
    asyncio.run(given_texts.GivenTexts.add(texts, Fake(), Fake(), (), ()))
    return len(texts._here) == number


def terms(number: int) -> bool:
    section: Any = Fake(kinds=[], countries=[], media="skip", patterns={}, arguments="skip")
    with (
        patch.object(redaction_config, "_terms", return_value=[str(at) for at in range(number)]),
        patch("gateway.features.redaction.model.rules_of"),
    ):
        return silent(lambda findings: (redaction_config._redaction(findings, "n", section, {}), ())[1])


def steps(number: int) -> bool:
    with patch.object(finding, "compiled", return_value=Fake(programsize=number)):
        return accepts(finding.compiled_own, "a")


def shadow_is_asked(running: int = 0, body_bytes: int = 0) -> bool:
    config, ask = object(), Mock()
    of: Any = Fake(_current=lambda: config, _running=set(range(running)), _sink=Mock(), _ask=ask)
    record = Fake(outcome="ok", answered_by=Fake(deployment="other"))
    with patch.object(traffic, "anonymous"):
        traffic.ShadowTraffic.offer(of, Fake(labels=("a",), record=record, config=config), Fake(), body_bytes)
    return bool(ask.called)


class Events:
    """A stream of so many events."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.close = AsyncMock()

    async def __aiter__(self) -> AsyncIterator[tuple[int, ...]]:
        yield tuple(range(self._number))


def shadow_events(number: int) -> bool:
    answer: Any = Fake(stream=Events(number))
    with patch.object(traffic, "fold"):
        return accepts(asyncio.run, traffic._whole(answer))


def shadow_text(size: int) -> object:
    choice = Fake(finish_reason="stop", message=Fake(tool_calls=(), refusal=None, content="x" * size))
    return traffic._text_of(Fake(choices=[choice]))


def database(size: int) -> bool:
    with patch.object(geoip, "_open"):
        return accepts(geoip.read_geoip, file_of(size))


def summary(territories: int) -> str:
    summary_of: Any = AnswerChange.summary
    return str(summary_of.fget(Fake(territories=("DE",) * territories, route="a", words="")))


def rsa_key(bits: int) -> object:
    with patch.object(claim_verification.RSAAlgorithm, "from_jwk", return_value=Fake(key_size=bits)):  # type: ignore[attr-defined]
        return claim_verification._read_key({"kty": "RSA"})


def peers(known: int) -> int:
    locator: Any = Fake(rules=Fake(edges=[1]), _edges_by_peer=dict.fromkeys(map(str, range(known))))
    with patch.object(resolution, "edge_of"):
        resolution.SignalLocator.edge_of(locator, "peer")
    return len(locator._edges_by_peer)


def sealed_with(digits: int) -> object:
    """Unseal a state whose number of values has so many digits."""
    from gateway.policy import reasoning_seal

    seal = ReasoningSeal((b"key",), ())
    number, of_values = "0" * digits, seal._mac_of_values(b"key", 0)
    covered = f"{number}~{of_values}"
    return seal.unseal(f"{reasoning_seal._mac(b'key', covered + '.state')}~{covered}.state")


def head_of(size: int) -> bool:
    connection: Any = Fake(_head_data=b"", url=b"x" * size, _headers=[])
    return accepts(http_protocol.ConnectionProtocol._check_head_size, connection)


def discarded(size: int) -> bool:
    connection: Any = Fake(_input=http_protocol.DISCARDING, _queue=[], _overhead_bytes=size, _refuse=Mock())  # type: ignore[attr-defined]
    http_protocol.ConnectionProtocol._limit_overhead(connection)
    return not connection._refuse.called


def is_remembered(size: int) -> bool:
    """A location is remembered unless its caller has long headers, of which the location depends on many bytes."""
    config: Any = Fake(memo={})
    with (
        patch.object(location, "key_bytes", return_value=size),
        patch.object(location, "remember") as remember,
        patch.object(location, "_located"),
        patch.object(location, "locator_of"),
    ):
        location.locate(config, Fake(location_key="k", header_bytes=100, client=None))
    return bool(remember.called)


def unused_for(days: int) -> bool:
    keys: Any = Fake(_admin=Mock(), _config=Fake(clients_source="database"), _stored=lambda client: [])
    return accepts(key_admin.UnusedKeys.list_keys, keys, None, str(days))


def spread(number: int) -> bool:
    news: Any = [{"at": at} for at in range(number)]
    return request_feed._sample(news) == news[::-1]


def rate_of(number: int) -> bool:
    news: Any = [{"at": "2026-01-01T00:00:00+00:00"}] * number
    return request_feed._rate(news) == number


def offered(queued: int) -> Any:
    sender: Any = Fake(exporter=Mock(), _closing=False, _queue=deque(range(queued)), _count=Mock())
    sender._otlp, sender._enough, sender._task = Mock(), Mock(), Mock()
    sender._task.done.return_value = False
    with patch.object(trace_export, "_is_sampled", return_value=True):
        trace_export._Sender.offer(sender, Mock(), Mock(), 0.0)
    return sender


def amount(nano: int) -> bool:
    rates: Any = Fake(_known={}, currency=None)
    return amounts.ExchangeRates.amount_of(rates, nano * amounts.PICO_PER_NANO, "EUR").vendor_nano == nano


def learned(known: int) -> int:
    usage: Any = Fake(_inputs=dict.fromkeys(map(str, range(known))), _speeds={})
    estimates.LearnedUsage.learn_input(usage, "new", 1, 1, None)
    return len(usage._inputs)


def cells(known: int) -> Any:
    of: Any = Fake(known=dict.fromkeys(range(known)), begin=Mock(), _writes=False, _name="n", write_cells=Mock())
    of.begin.return_value.get.return_value = "n"
    journal_file.JournalFile.transact(of, Mock(), None)
    return of.known


def series(known: int) -> int:
    of: Any = Fake(_series=dict.fromkeys(range(known)))
    statements = Mock()
    statements.execute.return_value.fetchone.return_value = [7]
    with patch.object(ledger, "series_values", return_value=("new",)):
        ledger.Ledger._series_of(of, statements, Mock())
    return len(of._series)


def is_moved_at_once(rows: int) -> bool:
    of = Mock(_beginning=nullcontext(), _has_begun=True)
    of._journal.recover.return_value = None
    of._journal.waiting.side_effect = [[("key", "row")] * rows, []]
    of._journal.duties.return_value = None, Mock(numbers=())
    ledger_writer.LedgerWriter.move(of)
    return bool(of._journal.waiting.call_count == 1)


def named_cap(cap: int) -> bool:
    call: Any = Fake(facts=Fake(takes_cap=True), paid_by_request=cap, limits=Fake(shows_cost=True))
    with patch.object(holding, "refusal_error") as refusal:
        holding._error(call, Fake(budgets=()), Fake(budget=0, instead=(), states=()))
    return refusal.call_args.kwargs["max_tokens"] is not None


def limited_addresses(number: int) -> bool:
    limiter = authentication.FailedKeyLimiter(lambda: 0.0)
    return kept(lambda at: limiter.count(str(at)), number, lambda: limiter._wrong)


def planned(values: int) -> bool:
    change = Change("key", "old", "new")
    return " more" not in plan_text.plan_text(ChangePlan("before", "after", values=(change,) * values))


def fallbacks(number: int) -> bool:
    reading = Mock()
    reading.at.return_value = "target"
    result: list[Any] = [None] * number
    of: Any = Fake(reading=reading)
    model: Any = Fake(use="chat")
    conversion._Assistants._add_targets(of, result, ("x",), {"target": [model]}, [model])
    return len(result) > number


def labels_of(number: int) -> bool:
    compiler: Any = Fake(_draft=Mock(), _read_label=lambda path, section: None)
    sections: Any = [Fake(name=str(at)) for at in range(number)]
    region_text.RegionTextCompiler._read_labels(compiler, (), sections)
    return not compiler._draft.error.called


def held_unjudged(size: int) -> bool:
    choice = Fake(is_over=False, is_whole=True, add=lambda event, text: None, size=size)
    stream: Any = Fake(_judge=Fake(moderation=Fake()), _choice=lambda number: choice, _no_verdict=ValueError)

    async def read() -> None:
        async for _ in moderated_stream.ModeratedStream._shown(stream, TextDelta("x")):
            pass

    return accepts(asyncio.run, read())


def values_of(number: int) -> bool:
    of: Any = Fake(_in_arguments=False, values={}, _by_value={}, _numbers=Counter(), kinds_of_values={})
    return accepts(lambda: [placeholders.Placeholders._of(of, str(at), (0, 1, "K")) for at in range(number)])


def number_of(digits: int) -> bool:
    match: Any = re.match(r"\d+", "1" * digits)
    return placeholders.Placeholders._token(Mock(return_value="QK1Z"), match) == '"QK1Z"'


def read_ahead(queued: int) -> bool:
    connection: Any = Fake(_queue=[None] * (queued - 1), watch_for_leaving=Mock(), flow=Mock())
    http_protocol.ConnectionProtocol._enqueue(connection, Mock(), {})
    return not connection.flow.pause_reading.called


def verified(number: int) -> bool:
    tokens = client_tokens.ClientTokens(Mock(), Mock())
    config: Any = Fake(token_issuers={}, clients={"key": Mock()})
    with (
        patch.object(tokens, "check", AsyncMock(return_value=(Mock(), None))),
        patch("gateway.identity.token_rules.holder_of", return_value=("name", Mock(until=1.0))),
        patch.object(client_tokens, "token_key", return_value="key"),
        patch.object(client_tokens, "replace"),
    ):
        return kept(lambda at: asyncio.run(tokens.verify(config, "token", str(at))), number, lambda: tokens._verified)


def rows_of(number: int) -> bool:
    """Return whether one more than so many combinations of labels are counted apart."""
    counted: Any = Fake(_counts={})
    count: Any = Metrics.count
    return kept(
        lambda at: count(counted, "name", (str(at),)), number + 1, lambda: {*counted._counts} - {("name", ("other",))}
    )


def unsettled(new: int) -> bool:
    times = Mock(new=[0] * (new - 1))
    metrics: Any = Fake(_attempts=Mock(get=lambda key: times))
    Metrics._count_attempt(metrics, "", Fake(deployment="d", provider="p", outcome="ok", duration_s=1.0))  # type: ignore[arg-type]
    return not times.settle.called


def tries_of_a_gate_that_refuses() -> int:
    refused = Mock(spec=HoldRefused, budget=0, quota=None, instead=(), states=())
    gate = Mock(hold=AsyncMock(return_value=refused))
    call = Mock(most_cap=9, paid_by_request=1, quotas=())
    call.limits.limits_money, call.facts.request.max_tokens, call.facts.request.reasoning_effort = False, None, None
    caps = iter(range(9, 0, -1))
    with (
        patch.object(holding, "_chosen_cap", lambda *_: (next(caps), True)),
        patch.object(holding, "sized"),
        patch.object(holding, "_error", return_value=ValueError("refused")),
        pytest.raises(ValueError, match="refused"),
    ):
        asyncio.run(holding.hold_call(gate, call))
    return gate.hold.call_count


def with_projects(number: int) -> Any:
    budget = {"budgets": [{"tokens": 5, "per": "month"}]}
    return table_of(BASE.merge({"projects": {f"p{at}": budget for at in range(number)}}), KEYS)


def clients_page(clients: int = 1, keys: int = 1, **query: str) -> dict[str, Any]:
    """Return the values of the console's page about clients."""
    documents = {
        "/readyz": {"state": {"keeps_history": True}},
        "/v1/admin/clients": {"source": "database", "clients": [{"name": f"c{at}"} for at in range(clients)]},
        "/v1/admin/projects": {"projects": []},
        "/v1/admin/keys": {"keys": [{"client": "c0", "status": "valid"}] * keys},
    }

    async def get(path: str, **_: str) -> dict[str, Any]:
        return documents[path]

    with patch.object(clients_view, "_budgets", AsyncMock(return_value=({}, ""))):
        shown = asyncio.run(clients_view.show(Fake(admin=Fake(get=get), query=query, is_operator=True)))
    return dict(shown.values)


EDGES = (
    at_most("gateway.api.caller.authentication._MOST_ADDRESSES", limited_addresses),
    at_most(
        "gateway.api.dialects.responses.tools.MAX_TOOLS",
        lambda n: accepts(
            tools.decode_tools,
            [{"type": "namespace", "name": "n", "tools": functions(n - 1)}, *functions(1)],
            tools.ToolNames(),
            set(),
        ),
    ),
    at_most("gateway.changes.plan_text._MOST_KEYS", planned),
    at_most("gateway.clock_skew.MOST_SKEW_S", lambda n: clock_skew.skew_problem(n, "a store") is None, 1000),
    at_most(
        "gateway.config.limits_report._MOST_NAMES",
        lambda n: not any("more projects" in name for name, _ in limits_report.limit_lines(with_projects(n))),
    ),
    below("gateway.litellm.conversion._MOST_STEPS", fallbacks),
    at_most("gateway.config.region_text._MAX_LABELS", labels_of),
    below("gateway.console.clients_view._MOST_DIGITS", lambda n: clients_page(99, page="2".zfill(n))["page"] == 2),
    at_most("gateway.console.clients_view._MOST_KEYS", lambda n: not clients_page(keys=n)["has_more_keys"]),
    at_most("gateway.console.clients_view._MOST_WITH_FORMS", lambda n: clients_page(n)["has_forms"]),
    at_least("gateway.console.world._LEAST_LETTERS", lambda n: world.find_territory("germany"[:n])),
    at_most("gateway.execution.moderated_stream._MOST_HELD", held_unjudged),
    at_most("gateway.features.redaction.policy.placeholders.MOST_VALUES", values_of),
    at_least("gateway.features.redaction.policy.placeholders._LEAST_DIGITS", number_of),
    below("gateway.server.http_protocol._MAX_READ_AHEAD", read_ahead),
    at_most("gateway.identity.client_tokens._MOST_VERIFIED", verified),
    below("gateway.telemetry.metrics._MOST_NEW", unsettled),
    below("gateway.telemetry.metrics._MOST_ROWS", rows_of),
    at_most("gateway.usage.holding._MOST_TRIES", lambda n: tries_of_a_gate_that_refuses() == n),
    at_most("gateway.api.admin_request._MAX_NAME_CHARACTERS", named),
    at_most(
        "gateway.api.admin_config._MAX_FAULT_CHARACTERS",
        lambda n: accepts(admin_config.fault_request, {"deployment": "d", "fault": "a" * n}),
    ),
    at_most(
        "gateway.api.admin_config._MOST_AHEAD_S",
        lambda n: accepts(
            asyncio.run,
            admin_config.move_clock(Fake(body=AsyncMock(return_value={"ahead_s": n}), control=Fake(clock=clock()))),
        ),
    ),
    at_most(
        "gateway.api.body.MAX_DEPTH",
        lambda n: accepts(body.parse_json, b"[" * (n - 1) + b",".join([b"[]"] * 9) + b"]" * (n - 1)),
    ),
    at_most("gateway.api.body._MOST_LISTS", input_with),
    at_most("gateway.api.body._MAX_BYTES_TO_NAME", names_the_repeated, 20),
    at_most(
        "gateway.api.caller.request_headers._MOST_MEMBERS",
        lambda n: request_headers._state_of(Fake(all=lambda _: [",".join(f"a{at}=1" for at in range(n))])),
    ),
    at_most("gateway.api.compressed_body.MOST_RATIO", expands),
    below(
        "gateway.api.dialects.gemini.contents._MAX_CALLS",
        lambda n: accepts(contents.ContentReader(DroppedFields())._call, {"functionCall": {"name": "f"}}, "p", n),
    ),
    at_most(
        "gateway.api.dialects.gemini.decode._MAX_TOOLS",
        lambda n: accepts(
            gemini_decode._tools,
            {"tools": [{"functionDeclarations": [{"name": f"f{at}"} for at in range(n)]}]},
            "",
            DroppedFields(),
        ),
    ),
    at_most("gateway.api.dialects.messages.decode._MAX_CALLS", turn_with),
    at_most(
        "gateway.api.dialects.messages.encode._MOST_NAMED_PLACES",
        lambda n: messages_encode.geo_of(Places(frozenset(map(str, range(n))))) != "global",
    ),
    at_most(
        "gateway.api.dialects.responses.echo._MOST_ECHOED_BYTES",
        lambda n: b'"x"' in echo.encode_echo({"instructions": "x", "tools": ()}, n),
    ),
    at_most(
        "gateway.api.dialects.responses.decode._MOST_METADATA",
        lambda n: accepts(responses_decode._read_metadata, dict.fromkeys(map(str, range(n)), ""), {}, {}, set()),
    ),
    at_most("gateway.api.dialects.schema.MOST_UNREAD", lambda n: accepts(schema.bounded, {*map(str, range(n))})),
    at_most("gateway.cli.arguments._MAX_DELAY_S", lambda n: accepts(arguments.seconds, str(n))),
    at_most(
        "gateway.cli.exchange_log._MAX_SHOWN_CHARACTERS",
        lambda n: exchange_log._indented(b"x" * n, str) == ["  " + "x" * n],
    ),
    at_most(
        "gateway.cli.provider_pages._MAX_LISTED_TERRITORIES",
        lambda n: (
            "territories" not in provider_pages._served_territories(Fake(places=Fake(included=CODES[:n]), never=()))
        ),
    ),
    at_most("gateway.config.field_types._MAX_WEIGHT", lambda n: accepts(field_types._route_step, {"a": n})),
    at_most("gateway.model.budget._MOST_UNITS", lambda n: accepts(model_budget._money, f"{n} EUR")),
    at_most("gateway.litellm.conversion._MOST_WEIGHT", weights),
    at_least("gateway.config.region_text._LEAST_REPEAT_S", repeated_after, 1000),
    at_most(
        "gateway.config.secret_references._MAX_SECRET_BYTES",
        lambda n: not secret_references._from_file(file_of(n)).mistake,
    ),
    at_least("gateway.config.secrets_file.LEAST_CHARACTERS", lambda n: secrets_file._is_key("k" * n)),
    at_most("gateway.config.secrets_file.MOST_VERSIONS", secrets_of),
    at_most("gateway.config.secrets_file._MOST_BYTES", lambda n: secrets_of(size=n), SECRETS_BYTES),
    at_most(
        "gateway.config.source_text.MAX_BYTES", lambda n: source_text._read(file_of(n)) == source_text.digest(b"x" * n)
    ),
    at_most("gateway.config.yaml_document.MAX_NODES", counted),
    at_most("gateway.console.application._MOST_LATER_S", moved),
    at_least("gateway.console.areas._LEAST_TOTAL", labelled),
    at_most("gateway.console.forms._MOST_FIELDS", lambda n: form_with(n) == n),
    below("gateway.console.page._MOST_TABLES", lambda n: tables(n) == n + 1),
    at_most("gateway.console.sessions._MOST_ADDRESSES", addresses_of),
    at_most("gateway.console.sessions._MOST_SESSIONS", sessions_of),
    at_most("gateway.console.visitors._MOST_NAME", user_of_proxy),
    at_most("gateway.execution.failure_observations._MOST_OBSERVATIONS", observations),
    at_most("gateway.execution.failure_observations._MOST_SCOPES", scopes),
    at_most("gateway.execution.hand_off_tool._MOST_HELD", held_text),
    at_most("gateway.execution.health._MOST_SUSPICIONS", suspicions),
    at_most(
        "gateway.execution.json_schemas.MOST_BYTES",
        lambda n: accepts(asyncio.run, json_schemas.answer_schema({"title": "x" * (n - 12)})),
        40,
    ),
    at_most(
        "gateway.execution.json_schemas.MOST_DEPTH",
        lambda n: accepts(json_schemas._SchemaReader(json_schemas.WorkLimit(1000)).read, nested(n), "#", 1),
    ),
    at_most("gateway.execution.json_schemas._MOST_CHARACTERS", checked),
    at_most("gateway.execution.json_schemas._MOST_KNOWN", schemas),
    at_most("gateway.execution.judging._MOST_REMEMBERED", passed_texts),
    at_least(
        "gateway.execution.redaction._LEAST_OF_KEY",
        lambda n: "key-" not in redaction._without_cut(f"key-1 {'key-12345'[:n]}", "key-12345")[6:],
    ),
    at_most(
        "gateway.features.redaction.policy.placeholders.MOST_HELD",
        lambda n: wrapper.Redaction.may_begin(Fake(), "q" * n),
    ),
    at_most(
        "gateway.identity.token_refresher._MOST_SUBJECT_BYTES", lambda n: accepts(token_refresher._read, file_of(n))
    ),
    at_most("gateway.execution.transport._MAX_REFUSAL_BYTES", lambda n: refusal_bytes(n) == n),
    at_most("gateway.features.crisis.config._MOST_NAMED", without_numbers),
    at_most("gateway.features.crisis.given_texts._MOST_HERE", given),
    at_least(
        "gateway.config.age_bands._LEAST_REPEAT_S",
        lambda n: silent(lambda it: [age_bands._band(it, ("x",), AgeBandSection.model_construct(repeat=n), None)]),
        1000,
    ),
    at_most("gateway.features.redaction.config._MOST_TERMS", terms),
    at_most(
        "gateway.features.redaction.config._MOST_PATTERNS",
        lambda n: silent(redaction_config._patterns, (), "n", dict.fromkeys(CODES[:n], "abc"), {}),
    ),
    at_most(
        "gateway.features.redaction.config._MOST_CHARACTERS",
        lambda n: redaction_config._problem_of_pattern("a" * n) is None,
    ),
    at_most("gateway.features.redaction.policy.finding._MOST_STEPS", steps),
    below("gateway.features.shadow.traffic.MAX_RUNNING", lambda n: shadow_is_asked(running=n)),
    at_most("gateway.features.shadow.traffic.MAX_BODY_BYTES", lambda n: shadow_is_asked(body_bytes=n)),
    at_most("gateway.features.shadow.traffic._MAX_EVENTS", shadow_events),
    at_most("gateway.features.shadow.traffic.MAX_CHARACTERS", shadow_text),
    at_most("gateway.geoip._MAX_BYTES", database),
    at_most("gateway.model.answer_change._MOST_CODES", lambda n: " more" not in summary(n)),
    below("gateway.policy.labels._MAX_POSITION", labels._is_position),
    at_least("gateway.policy.location.claim_verification._MIN_RSA_BITS", rsa_key),
    at_most("gateway.policy.location.claim_verification._MAX_RSA_BITS", rsa_key, 5000),
    below("gateway.policy.location.resolution._MOST_PEERS", lambda n: peers(n) == n + 1),
    below("gateway.policy.reasoning_seal._MOST_DIGITS", sealed_with),
    at_most("gateway.server.http_protocol.MAX_DISCARDED_BYTES", discarded),
    at_most("gateway.server.http_protocol.MAX_HEAD_BYTES", head_of),
    at_most("gateway.server.request_feed.MOST_IN_EVENT", spread),
    below("gateway.server.request_feed.MOST_REQUESTS", rate_of),
    at_most(
        "gateway.service.budget_admin._MOST_UNITS",
        lambda n: accepts(budget_admin.BudgetAdmin._amount, None, f"{n} EUR"),
    ),
    at_most("gateway.service.client_admin._MOST_TEXT", lambda n: accepts(client_admin._line, "note", "a" * n)),
    at_most("gateway.service.issuer_keys._MAX_KEY_SET_BYTES", lambda n: accepts(issuer_keys._read_file, file_of(n))),
    at_most("gateway.service.location._MOST_REMEMBERED_BYTES", is_remembered),
    at_most("gateway.service.key_admin._MOST_DAYS", unused_for),
    at_most(
        "gateway.state.backup._MOST_KEY_BYTES",
        lambda n: backup._is_private_key(Path(file_of(n, b"-----BEGIN PRIVATE KEY-----"))),
        40,
    ),
    below("gateway.telemetry.trace_export._MOST_QUEUED", lambda n: not offered(n)._count.called),
    below("gateway.telemetry.trace_export._MOST_IN_BATCH", lambda n: not offered(n - 1)._enough.set.called),
    at_most("gateway.usage.amounts.MOST_NANO", amount),
    at_most("gateway.usage.amounts._MOST_DIGITS", lambda n: accepts(amounts.exact_rate, "1." + "1" * (n - 1))),
    below("gateway.usage.estimates._MOST_KNOWN", lambda n: learned(n) == n + 1),
    at_most("gateway.usage.estimates.MOST_TOKENS", lambda n: estimates.is_plausible(Usage(n, 0))),
    at_least("gateway.usage.holding.LEAST_CAP_SENT", named_cap),
    at_most("gateway.usage.journal_file._MOST_KNOWN", cells),
    below("gateway.usage.ledger._MOST_KNOWN_SERIES", lambda n: series(n) == n + 1),
    below("gateway.usage.ledger_writer._MOST_ROWS", is_moved_at_once),
)


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.bound)
def test_bound_is_exact(edge: Edge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    edge.check(monkeypatch, tmp_path)
