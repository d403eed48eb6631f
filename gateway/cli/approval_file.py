"""The file that an operator files for a generative service in mainland China: what the gateway knows, and named blanks.

It is made of the evidence about the region and the report of an evaluation. `approval_file.toml` has its parts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.model.approval import days_at
from gateway.model.refusal_reason import RefusalReason
from gateway.operator_errors import CommandError
from providers.json_values import as_map, read_map

if TYPE_CHECKING:
    from gateway.cli.evidence_configs import ActiveConfigs
    from gateway.model.deployment import Deployment

_TERRITORY = "CN"
_FORMAT = 2


class _Found(msgspec.Struct):
    """The known facts of one part: rows of a table, missing facts, and lines of text."""

    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    lines: list[str] = []


def approval_document(
    evidence: Mapping[str, Any], configs: ActiveConfigs, report: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the file about a region of mainland China, with its evidence as an auditor gets it. Raises CommandError.

    The last one of `configs` that can be read decides who answers.
    """
    from gateway.changes.plan import deployments_prompted

    if not configs.states:
        raise CommandError("--for approval: no configuration of these months can be read")
    state, region = configs.states[0]
    if not state.config.regions[region].territories.contains(_TERRITORY):
        of = evidence["region"]
        raise CommandError(f"--for approval: the file is that of mainland China, and region {of!r} has no CN")
    assistants = state.config.own_assistants.values()
    prompted = {it.name: it for assistant in assistants for it in deployments_prompted(assistant, region)}
    deployments = [prompted[name] for name in sorted(prompted)]
    texts = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    rules = evidence["rules"]
    judged = [f"moderation: {rules['moderation']}"] if rules["moderation"] else []
    refused = [it for it in evidence["refusals"] if it["reason"] == RefusalReason.MODERATION]
    features = [f"{it['rule']}: {it['text']}" for it in rules["features"]]
    found: Mapping[str, _Found] = {
        "models": _models(evidence, deployments, region),
        "assessment": _assessment(texts["figures"], evidence, deployments, report),
        "keywords": _Found(refused, [] if judged else ["no text is judged: the region has no `moderation`"], judged),
        "labels": _Found(rules["labels"], [] if rules["labels"] else ["the region has no label"]),
        "minors": _Found(evidence["duties"], lines=features),
        "logs": _Found(evidence["prompts"], _unknown(evidence), _records(evidence["proof"])),
    }
    return {
        **{name: evidence[name] for name in ("gateway", "made_at", "region", "names", "from", "to", "timezone")},
        "object": "evidence.approval",
        "parts": [
            {
                "name": name,
                **{key: part[key] for key in ("zh", "en", "basis")},
                **msgspec.structs.asdict(found.get(name, _Found())),
                "blanks": [dict(zip(("name", "zh", "en"), it, strict=True)) | {"value": None} for it in part["blanks"]],
            }
            for name, part in texts["parts"].items()
        ],
    }


def _models(evidence: Mapping[str, Any], answering: list[Deployment], region: str) -> _Found:
    """Return the approvals with provider and model of their deployments, and the deployments that have none today."""
    models = {it["deployment"]: {key: it[key] for key in ("provider", "model")} for it in evidence["vendors"]}
    rows = [{"deployment": it["deployment"], **models[it["deployment"]], **it} for it in evidence["approvals"]]
    days = days_at(_made_s(evidence))
    lacking = ((it.name, it.why_unapproved(region, days)) for it in answering)
    return _Found(rows, [f"{name}: {why}" for name, why in lacking if why is not None])


def _made_s(evidence: Mapping[str, Any]) -> float:
    """Return the moment (Unix time) for which the evidence was made."""
    return datetime.fromisoformat(evidence["made_at"]).timestamp()


def _assessment(
    figures: Mapping[str, Any],
    evidence: Mapping[str, Any],
    answering: list[Deployment],
    report: Mapping[str, Any] | None,
) -> _Found:
    """Return the figures of each candidate that answers, and what the evaluation lacks. Raises CommandError."""
    regions, made_s = evidence["names"], _made_s(evidence)
    if report is None:
        return _Found(missing=["no evaluation: run `gateway evaluate`, and name its folder with `--evaluation`"])
    if report.get("format") != _FORMAT or report.get("region") not in regions:
        raise CommandError(f"--evaluation: it is not a report of region {regions[-1]} in format {_FORMAT}")
    suite, candidates = read_map(report, "suite"), read_map(report, "candidates")
    bank = f"{suite.get('name')} {str(suite.get('digest'))[:12]}, {report.get('at')}"
    simulated = ["the answers are those of simulated providers"] if report.get("simulated") else []
    found = _Found([], simulated, ["a rehearsal with the question bank of the suite, not the test of the standard"])
    for deployment in answering:
        name, answers = deployment.name, deployment.redirected_to(made_s) or deployment.model
        candidate = as_map(candidates.get(name))
        measured = read_map(candidate, "figures")
        evaluated = candidate.get("redirected_to") or candidate.get("model") or answers
        if evaluated != answers:
            found.missing.append(f"{name}: the evaluation is of {evaluated}, and {answers} answers")
        for key, text in figures.items():
            figure = as_map(measured.get(key))
            value, items = figure.get("value"), figure.get("of")
            if not isinstance(value, float | int) or not isinstance(items, int):
                found.missing.append(f"{name}: {text['en']}: not measured")
                continue
            required = f"at least {text['least']:.0%}" if "least" in text else f"at most {text['most']:.0%}"
            is_met = text.get("least", 0.0) <= value <= text.get("most", 1.0)
            result = {"figure": f"{text['zh']} · {text['en']}", "items": items, "result": f"{value:.1%}"}
            found.rows.append(
                {"deployment": name, "question_bank": bank, **result, "required": required, "met": is_met}
            )
    return found


def _unknown(evidence: Mapping[str, Any]) -> list[str]:
    """Return in words which records of these months are not here."""
    deleted = [f"{month}: rows of calls were deleted" for month in evidence["missing_months"]]
    unread = [f"version {it} of the configuration cannot be read" for it in evidence["configurations_not_read"]]
    begin = evidence["recorded_since"]
    return [*deleted, *unread, *([f"no configuration is recorded before {begin}"] if begin is not None else [])]


def _records(proof: Mapping[str, Any]) -> list[str]:
    """Return in words which records exist, and whether they are whole."""
    receipts, audit = proof["receipts"], proof["audit"]
    whole = "its chain is whole" if audit["ok"] else f"not proven: {audit['problem']}"
    return [
        f"receipts: {receipts['receipts']} of the region, {receipts['changed']} of all were changed",
        f"audit trail: {audit['lines']} lines, {whole}",
    ]
