"""Measure how many small errors in the rules the tests detect.

    .venv/bin/python -m tests.mutation.run                       every module of MODULES
    .venv/bin/python -m tests.mutation.run gateway/policy/fence.py
    .venv/bin/python -m tests.mutation.run --every 10    every tenth mutant of each, without a second check of survivors

Each mutant runs in its own process. It is put into an imported module, in a child of a process that has collected the
tests. A survivor, and a mutant that cannot be put in this way, is checked again in a child that imports everything
anew. A mutant is killed if a test fails or if the tests take too long. Survivors are printed with their line.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.swap import can_be_swapped, swap

ROOT = Path(__file__).parents[2]
LIMIT_S = 240
_COMPILE = "tests/gateway/config/test_compile.py"
# The test of the growth of work takes longer than all the others and tests no rule. Where pytest rewrites asserts, it
# imports the packages itself and would never see a mutant of `providers`. The long form of an experiment has the rules
# of the short one, and takes a minute for each mutant.
_OPTIONS = [
    "-x",
    "-m",
    "not full",
    "-q",
    "--assert=plain",
    "--deselect",
    f"{_COMPILE}::TestTable::test_the_work_grows_as_the_deployments_do",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:randomly",
    "-W",
    "ignore",
    "--hypothesis-seed=0",
]
_BROKEN = ["tests/gateway/config/test_broken_configs.py", "tests/gateway/config/test_patched_configs.py"]


def _policy(*names: str) -> list[str]:
    return [f"tests/gateway/policy/test_{name}.py" for name in names]


def _within(part: str) -> Callable[..., list[str]]:
    return lambda *names: [f"tests/gateway/{part}/test_{name}.py" for name in names]


_config = _within("config")
_features = _within("features")
_api, _execution, _state = _within("api"), _within("execution"), _within("state")
_changes, _server = _within("changes"), _within("server")
_caller, _service, _usage = _within("api/caller"), _within("service"), _within("usage")


def _providers(*names: str) -> list[str]:
    return [f"tests/providers/test_{name}.py" for name in names]


# Each module's own tests come first, because most mutants need no others.
MODULES: dict[str, list[str]] = {
    "gateway/policy/canary_schedule.py": [*_policy("fisher_exact"), *_policy("schedule")],
    "gateway/policy/consent.py": [*_policy("consent"), *_service("hand_off")],
    "gateway/features/crisis/policy.py": _service("crisis"),
    "gateway/features/crisis/config.py": [*_features("crisis"), *_BROKEN],
    "gateway/features/minors/policy.py": [*_features("minors"), *_service("minors")],
    "gateway/model/hours.py": [*_features("minors"), *_service("minors")],
    "gateway/config/age_bands.py": [*_features("minors"), *_BROKEN, *_service("minors")],
    "gateway/execution/moderated_stream.py": [
        *_execution("moderated_stream"),
        *_service("judged_streams", "moderated_chats", "held_answers"),
    ],
    "gateway/policy/labels.py": [*_policy("labels"), "tests/gateway/api/test_labelled_answers.py"],
    "gateway/model/config_version.py": [*_policy("table_cache"), *_config("exporters"), "tests/gateway/telemetry"],
    "gateway/policy/canary_assignment.py": _policy("rendezvous", "canary_assignment", "routing"),
    "gateway/policy/region_text.py": [*_policy("profile"), *_config("region_text"), *_policy("locale_choice")],
    "gateway/policy/routing.py": [
        *_policy("routing", "approvals", "canary_assignment", "fence", "consent"),
        "tests/evaluation/test_asking.py",
        "tests/gateway/features/test_shadow_traffic.py",
    ],
    "gateway/config/approvals.py": [*_config("approval_records"), *_BROKEN, _COMPILE],
    "gateway/config/routes.py": [
        *(*_BROKEN, _COMPILE),
        *_config("routes", "embeddings", "barriers", "canaries", "own_servers", "provider_hints", "approval_records"),
        *_service("hand_off", "asked_hand_offs"),
    ],
    "gateway/config/regions.py": [*_config("boundaries"), *_BROKEN, _COMPILE],
    "gateway/config/clients.py": [*_config("clients", "client_tokens"), *_BROKEN, _COMPILE],
    "gateway/config/credentials.py": [
        *_config("consent", "server_options"),
        _COMPILE,
        *_BROKEN,
        *_config("cloud_projects"),
    ],
    "gateway/config/deployments.py": [
        *(_COMPILE, *_BROKEN),
        *_config(
            "approval_records", "catalogues", "consent", "concurrency_sections", "cloud_projects", "server_options"
        ),
    ],
    "gateway/config/endpoints.py": [*_BROKEN, _COMPILE, *_config("cloud_projects", "pinned_sites")],
    "gateway/config/exporters.py": [*_config("exporters"), *_BROKEN],
    "gateway/config/location.py": [*_BROKEN, _COMPILE, *_config("location")],
    "gateway/config/territories.py": [*_BROKEN, _COMPILE],
    "gateway/config/service_permits.py": [*_config("location", "exporters"), *_BROKEN],
    "gateway/policy/fence.py": [
        *_policy("fence", "approvals", "routing"),
        *_features("redaction_rules"),
        "tests/gateway/api/test_redacted_requests.py",
    ],
    "gateway/policy/refusals.py": _policy("routing", "location", "consent", "approvals"),
    "gateway/policy/caller.py": _caller("user", "consent"),
    "gateway/policy/location/claim_verification.py": _policy("claim_verification"),
    "gateway/policy/location/client_address.py": [*_policy("client_address"), *_caller("authentication")],
    "gateway/policy/location/resolution.py": _policy("location", "signals", "fence", "routing"),
    "gateway/policy/location/claim.py": [
        *_policy("signals", "location"),
        *_config("location"),
        *_BROKEN,
        "tests/gateway/service/test_location.py",
    ],
    "gateway/policy/location/geoip.py": [*_policy("signals", "location"), *_config("location"), *_BROKEN],
    "gateway/policy/location/signal.py": _policy("signals", "location"),
    "gateway/policy/location/signals.py": _policy("signals", "location"),
    "gateway/policy/location/subdivisions.py": _policy("location", "routing"),
    "gateway/policy/location/trusted_edge.py": [*_policy("signals", "client_address"), *_caller("authentication")],
    "gateway/usage/client_limits.py": _usage("client_limits"),
    "gateway/usage/quota_store.py": _usage("quota_store", "rate_limit"),
    "gateway/api/caller/authentication.py": _caller("authentication", "failed_key_limiter", "known_head"),
    "gateway/api/caller/request_headers.py": _caller("known_head", "trace_context", "authentication"),
    "gateway/api/dialects/openai_chat.py": _api("labelled_answers", "stream", "chat"),
    "gateway/api/errors.py": [*_api("errors", "chat"), *_caller("consent")],
    "gateway/api/chat.py": _api("chat", "chat_limits", "resource_release"),
    "gateway/api/written_exchange.py": _api("responder", "keep_alive", "chat", "single_write", "resource_release"),
    "gateway/api/response_headers.py": _api("response_headers"),
    "gateway/service/chat_service.py": [*_service("chat_service"), *_api("chat", "chat_limits")],
    "gateway/service/claim_issuer.py": _service("location"),
    "gateway/service/decider.py": _service("chat_service", "changes_before_sending", "minors"),
    "gateway/service/location.py": [*_service("location"), *_caller("known_head")],
    "gateway/execution/answer_stream.py": [*_execution("answer_stream", "fast_paths", "resume"), *_api("responder")],
    "gateway/execution/breaker.py": _execution("breaker", "breakers_in_plans"),
    "gateway/execution/concurrency_limiter.py": _execution("concurrency_limiter", "concurrency_in_plans"),
    "gateway/execution/deadline.py": _execution("deadline", "latency_tracker"),
    "gateway/execution/health.py": _execution("health", "plan_execution", "breakers_in_plans"),
    "gateway/execution/latency.py": _execution("latency_tracker", "attempt_options"),
    "gateway/execution/overlap_trimmer.py": _execution("overlap_trimmer", "resume"),
    "gateway/execution/run.py": _execution(
        "plan_execution", "concurrency_in_plans", "latency_tracker", "health", "breakers_in_plans"
    ),
    "gateway/execution/redaction.py": _execution("redaction", "exchange_log", "fixed_headers"),
    "gateway/execution/resume.py": _execution("resume"),
    "gateway/execution/resume_request.py": _execution("resume"),
    "gateway/execution/retry.py": _execution("retry", "retry_budget", "plan_execution"),
    "gateway/execution/transport.py": _execution("transports", "error_bodies", "upstream_client", "exchange_log"),
    "gateway/execution/upstream_client.py": _execution("plan_execution", "answer_stream", "fast_paths", "pseudonyms"),
    "gateway/execution/folded_answers.py": _execution("plan_execution", "fold"),
    "gateway/execution/upstream_request.py": _execution("upstream_client", "fixed_headers"),
    "gateway/api/cors.py": _api("cors"),
    "gateway/api/admin_control.py": _api("admin"),
    "gateway/changes/live_config.py": _changes("live_config", "rollback", "unusable_files"),
    "gateway/changes/schedules.py": _changes("scheduler"),
    "gateway/changes/change_log.py": _changes("change_log", "rollback"),
    "gateway/server/request_cycle.py": _server("request_cycle", "http_protocol"),
    "gateway/server/request_head.py": _server("request_head", "http_protocol"),
    "gateway/server/http_protocol.py": _server("http_protocol", "request_head", "connection_caches"),
    "gateway/server/host.py": _server("workers"),
    "gateway/server/workers.py": _server("workers"),
    "gateway/server/idle_timeout.py": _server("http_protocol"),
    "gateway/state/audit.py": _state("audit"),
    "gateway/state/history.py": [*_state("history"), *_changes("change_log")],
    "gateway/state/receipts.py": _state("receipts"),
    "gateway/changes/plan_checks.py": _changes("plan", "plan_checks"),
    "gateway/changes/plan.py": _changes("plan"),
    "gateway/signing.py": ["tests/gateway/test_signing.py"],
    "gateway/model/approval.py": [*_policy("approvals"), *_config("approval_records")],
    "providers/formats/claude_answer.py": _providers("anthropic_answer", "anthropic_simulator"),
    "providers/vendors/anthropic/adapter.py": _providers("anthropic_answer", "anthropic_simulator"),
    "providers/vendors/anthropic/request.py": _providers("anthropic_request", "anthropic_simulator"),
    "providers/vendors/bedrock/answer.py": _providers("bedrock"),
    "providers/vendors/bedrock/request.py": _providers("bedrock"),
    "providers/vendors/dashscope/answer.py": _providers("dashscope_answer", "dashscope_simulator"),
    "providers/vendors/dashscope/request.py": _providers("dashscope_request", "dashscope_simulator"),
    "providers/vendors/gemini/answer.py": _providers("gemini_answer", "gemini_simulator"),
    "providers/vendors/gemini/request.py": _providers("gemini_request", "gemini_simulator"),
    "providers/openai_json/stream_relay.py": _providers("stream_relay", "openai_adapter"),
    "providers/openai_json/read_answer.py": _providers("compatible_vendors", "openai_plain_answer", "every_vendor"),
    "providers/compatible/request.py": _providers("compatible_vendors"),
    "providers/reading/assembler.py": _providers("stream_assembler", "streaming", "folding"),
    "providers/catalogue/headers.py": ["tests/providers/test_catalogue.py"],
    "providers/matching/capability_matching.py": [
        *_providers("capability_matching", "decode_plain_request"),
        "tests/gateway/test_request_fields.py",
    ],
    "providers/reading/folding.py": _providers("folding"),
    "providers/matching/requirements.py": [
        *_providers("decode_plain_request", "capability_matching"),
        "tests/gateway/test_request_fields.py",
    ],
    "providers/reading/errors.py": _providers("error_messages", "error_classification", "every_vendor"),
    "providers/signing/sigv4.py": _providers("signing_sigv4"),
    "providers/sites.py": ["tests/providers/test_sites.py", *_BROKEN, _COMPILE],
    "providers/reading/sse.py": _providers("sse"),
    "providers/reading/event_stream.py": _providers("streaming", "stream_relay"),
    "providers/territories.py": ["tests/providers/test_territories.py", *_BROKEN, _COMPILE],
}


class _Mutated(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Imports one module from another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(self._path))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)  # noqa: S102  # the project's own source, mutated


def outcome_of(path: str, mutant: Mutant | None, tests: Sequence[str]) -> str:
    """Run the tests and return `killed`, `survived`, or `too long`. All code under test is imported anew, which is
    slow.
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _run_in_child(path, mutant, tests)
    return _outcome_of_child(child)


def _outcome_of_child(child: int) -> str:
    deadline = time.monotonic() + LIMIT_S
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "too long"
        time.sleep(0.01)


def _run_in_child(path: str, mutant: Mutant | None, tests: Sequence[str]) -> None:
    import pytest

    _discard_output()
    if mutant is not None:
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        sys.meta_path.insert(0, _Mutated(name, ROOT / path, mutant.source))
    status = 0
    try:
        # The tests most likely to fail come first, because most mutants need no others.
        for test in dict.fromkeys(tests):
            status = status or int(pytest.main([*_OPTIONS, test]))
    except BaseException:  # a mutant may break anything
        status = 1
    os._exit(status)


def _discard_output() -> None:
    sink = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(sink, number)


class _Swapping:
    """Replaces pytest's test loop: runs the collected tests for each mutant, in a child process each."""

    def __init__(self, path: str, mutants: Sequence[Mutant], report_outcome: Callable[[Mutant, str], None]) -> None:
        self._path, self._mutants, self._report_outcome = path, mutants, report_outcome

    def pytest_runtestloop(self, session: Any) -> bool:
        module = importlib.import_module(self._path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        items = list(session.items)
        gc.freeze()
        for mutant in self._mutants:
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                _discard_output()
                os._exit(_status_with(session, items, module, mutant, writing))
            os.close(writing)
            self._report_outcome(mutant, _outcome_of_child(child))
            # A test that detected one mutant is likely to detect the next.
            with os.fdopen(reading) as detected_by:
                if number := detected_by.read():
                    items.insert(0, items.pop(int(number)))
        return True


def _status_with(session: Any, items: Sequence[Any], module: ModuleType, mutant: Mutant, detected_by: int) -> int:
    try:
        swap(module, mutant.source)
        for number, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                _write(detected_by, str(number))
                return 1
    except BaseException:  # a mutant may break anything
        return 1
    return 0


def outcomes_of(
    path: str, mutants: Sequence[Mutant], tests: Sequence[str], *, quick: bool = False
) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant with its outcome. A survivor is checked again with fresh imports, unless `quick` is set."""
    import pytest

    source = (ROOT / path).read_text("utf-8")
    swapped = [mutant for mutant in mutants if can_be_swapped(source, mutant.line)]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        numbers = {id(mutant): number for number, mutant in enumerate(swapped)}
        plugin = _Swapping(
            path, swapped, lambda swapped_mutant, outcome: _write(writing, f"{numbers[id(swapped_mutant)]} {outcome}\n")
        )
        _discard_output()
        os._exit(int(pytest.main([*_OPTIONS, *dict.fromkeys(tests)], plugins=[plugin])))
    os.close(writing)
    reported = set()
    with os.fdopen(reading) as lines:
        for line in lines:
            number, _, outcome = line.strip().partition(" ")
            reported.add(int(number))
            mutant = swapped[int(number)]
            yield mutant, outcome_of(path, mutant, tests) if outcome == "survived" and not quick else outcome
    os.waitpid(child, 0)
    remaining = [mutant for number, mutant in enumerate(swapped) if number not in reported]
    for mutant in [*remaining, *(mutant for mutant in mutants if not can_be_swapped(source, mutant.line))]:
        yield mutant, outcome_of(path, mutant, tests)


def _write(pipe: int, line: str) -> None:
    os.write(pipe, line.encode())


def import_what_tests_share() -> None:
    """Import what each child would import again and no mutant changes, and set how properties draw examples."""
    import hypothesis.strategies
    import jwt
    import openai
    import pydantic
    import pytest
    import yaml

    assert all((hypothesis, jwt, openai, pydantic, pytest, yaml))
    # A failing child needs neither a minimal example nor examples of another child.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutation", database=None, phases=phases, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    hypothesis.settings.load_profile("mutation")


def main() -> None:
    """Run the named modules, or all. Prints each surviving mutant and the score of each module."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.run", description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="module", help="a path of MODULES; default: all")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth mutant only")
    options = parser.parse_args()
    if options.every < 1:
        parser.error("--every takes a number from 1 on")
    if unknown := [path for path in options.modules if path not in MODULES]:
        parser.error(f"{unknown[0]} is not in MODULES of tests/mutation/run.py")
    os.chdir(ROOT)
    import_what_tests_share()
    if unmeasured := measure(options.modules or list(MODULES), options.every):
        sys.exit(f"not measured: {', '.join(unmeasured)}")


def measure(paths: Sequence[str], every: int) -> list[str]:
    """Measure each module, and print its survivors and its score. Returns the modules that cannot be measured."""
    totals, unmeasured = Counter[str](), list[str]()
    for path in paths:
        tests = MODULES[path]
        if outcome_of(path, None, tests) != "survived":
            print(f"{path}: its tests fail without any mutant", flush=True)
            unmeasured.append(path)
            continue
        killed = total = 0
        mutants = list(mutants_of((ROOT / path).read_text("utf-8")))[::every]
        for mutant, outcome in outcomes_of(path, mutants, tests, quick=every > 1):
            total += 1
            killed += outcome != "survived"
            if outcome == "survived":
                print(f"{path}:{mutant.line}: survived: {mutant.description}", flush=True)
        print(f"{path}: {killed} of {total} killed", flush=True)
        totals.update(killed=killed, total=total)
    print(f"all: {totals['killed']} of {totals['total']} killed", flush=True)
    return unmeasured


if __name__ == "__main__":
    main()
