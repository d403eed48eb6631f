"""Approvals in the config: errors, warnings, and the output of `check`."""

from datetime import UTC, datetime

from gateway.config.check_report import render_matrix
from gateway.config.compile import Compiled
from gateway.config.loading import parse_document
from gateway.config.problems import Problem, dotted
from gateway.features.configuration import compile_config
from gateway.model.approval import days_at
from providers.registry import load_registry
from tests.kit.case_files import cases
from tests.kit.config_cases import ENVIRON, SOUND, compiled, edited, sections

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC).timestamp()
RECORD = {"region": "cn", "authority": "CAC", "kind": "registration", "number": "N-1", "model_name": "通义千问"}


def config(*records: dict[str, str], required: bool = True) -> str:
    text = "[" + ", ".join("{" + ", ".join(f"{key}: {value}" for key, value in item.items()) + "}" for item in records)
    deployments = edited(SOUND["deployments"], ("cn-beijing,", f"cn-beijing, approvals: {text}],"))
    approvals = "required" if required else "none"
    regions = edited(SOUND["regions"], ("boundary: [CN]", f"boundary: [CN], approvals: {approvals}"))
    return sections(deployments=deployments, regions=regions)


def on(now: float, *records: dict[str, str]) -> Compiled:
    document = parse_document(config(*records).encode(), "gateway.yaml", ENVIRON, clock=lambda: now)
    return compile_config(document, registry=load_registry())


def messages_of(problems: tuple[Problem, ...]) -> list[str]:
    return [f"{dotted(problem.path)}: {problem.message}" for problem in problems]


def test_approval_is_compiled_unchanged() -> None:
    document = "https://www.example.cn/filings/1.pdf?a=b"
    record = {**RECORD, "valid_from": "2026-01-01", "valid_until": "2099-12-31", "document": document}
    table = compiled(config(record)).config
    [approval] = table.deployments["qwen-cn"].approvals
    assert (approval.region, approval.authority, approval.kind) == ("cn", "CAC", "registration")
    assert (approval.number, approval.model_name, approval.document) == ("N-1", "通义千问", document)
    assert (str(approval.valid_from), str(approval.valid_until)) == ("2026-01-01", "2099-12-31")
    assert table.regions["cn"].approvals_required
    assert not table.regions["eu"].approvals_required
    assert "      approvals: required" in render_matrix(table).splitlines()


def test_approval_for_a_single_day_is_valid() -> None:
    assert on(NOW, {**RECORD, "valid_from": "2099-01-01", "valid_until": "2099-01-01"}, RECORD).warnings == ()


def test_gap_between_approvals_is_reported_with_both_days() -> None:
    gap = on(NOW, {**RECORD, "valid_until": "2026-11-01"}, {**RECORD, "valid_from": "2027-01-01"})
    ended = "its approval for region 'cn' ended on 2026-11-01; the next begins on 2027-01-01"
    assert f"deployments.qwen-cn.approvals[0]: {ended}" in messages_of(gap.warnings)


def test_overlapping_approvals_are_valid() -> None:
    assert on(NOW, {**RECORD, "valid_until": "2027-06-01"}, {**RECORD, "valid_from": "2027-01-01"}).warnings == ()


def test_region_requires_approvals_or_none() -> None:
    none = edited(config(RECORD), ("approvals: required", "approvals: none"))
    assert not compiled(none).config.regions["cn"].approvals_required


EXAMPLES = {"model_filing": "ZheJiang-TongYiQianWen-20230901", "algorithm_filing": "网信算备330110507206401230035号"}


@cases("authority", "kind", "number", "is_known")
def test_number_of_a_known_authority_must_have_its_form(authority: str, kind: str, number: str, is_known: bool) -> None:
    found = on(NOW, {**RECORD, "authority": authority, "kind": kind, "number": number}).warnings
    place = "deployments.qwen-cn.approvals[0].number"
    message = f"{place}: does not have the published form of the number of a CAC {kind.replace('_', ' ')}"
    assert messages_of(found) == ([] if is_known else [message])
    assert [problem.hint for problem in found] == ([] if is_known else [f"such as {EXAMPLES[kind]}"])


@cases("last", "lines")
def test_expiry_is_warned_of_in_advance(last: str, lines: list[str]) -> None:
    compiled = on(NOW, {**RECORD, "valid_until": last})
    assert messages_of(compiled.warnings) == [f"deployments.qwen-cn.approvals[0]: {line}" for line in lines]


def test_expired_approval_is_a_warning_and_does_not_block_a_reload() -> None:
    compiled = on(NOW, {**RECORD, "valid_until": "2026-11-01"})
    ended = "its approval for region 'cn' ended on 2026-11-01"
    assert messages_of(compiled.warnings) == [
        f"assistants.assistant.routes.cn: no deployment of this route is available now (qwen-cn: {ended})",
        f"deployments.qwen-cn.approvals[0]: {ended}",
    ]
    assert f"       not now: {ended}" in render_matrix(compiled.config, days_at(NOW)).splitlines()


def test_step_without_approval_is_warned_of_if_the_region_requires_one() -> None:
    found = messages_of(on(NOW).warnings)
    assert "assistants.assistant.routes.cn[0]: 'qwen-cn' has no approval for region 'cn': it is skipped here" in found
    assert compiled(config(required=False)).warnings == ()
