"""Decide whether a compiled version may become active, compare it with the active one, and record it first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.changes.compile_job import CompiledState, CompileJob, Outcome, state_of
from gateway.changes.plan import listener_notes, route_steps, sections_between
from gateway.config.problems import Problem, dotted, quoted
from gateway.model.answer_change import AnswerChange
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.served import USES
from gateway.model.status import Cause, Changes, Finding
from gateway.operator_errors import StateError
from gateway.policy.territory_answers import answer_changes
from gateway.telemetry.log import logger
from providers.value import Value, replace

if TYPE_CHECKING:
    from gateway.changes.change_log import ChangeLog, PinnedRollback


# Adapters are code and are not compared. The other fields of a deployment show whether it changed.
_compared = attrgetter(*(field.name for field in fields(Deployment) if field.name != "adapter"))


def changes_between(old: ConfigVersion, new: ConfigVersion) -> Changes:
    """Return the differences between two config versions."""
    before, after = old.deployments, new.deployments
    old_routes, new_routes = _routes(old), _routes(new)
    names = old_routes.keys() | new_routes.keys()
    return Changes(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in after if name in before and _compared(before[name]) != _compared(after[name])),
        routes=tuple(sorted(name for name in names if old_routes.get(name) != new_routes.get(name))),
        sections=sections_between(old, new),
    )


def _routes(config: ConfigVersion) -> Mapping[str, tuple[str, ...]]:
    """Return each route as a plan shows it, by `assistant/region`."""
    return {
        f"{assistant.name}/{region}": route_steps(assistant, region, USES[1:])
        for assistant in config.own_assistants.values()
        for region in assistant.regions
    }


def emptied_credential(old: ConfigVersion, new: ConfigVersion) -> str | None:
    """Return why a version must not replace another, or None: a deployment would lose its key to an empty file.

    Some programs empty a file before they write a new secret. A file that is gone takes its key away.
    """
    for name, deployment in new.deployments.items():
        before = old.deployments.get(name)
        if before is None or not (deployment.enabled and before.credentials) or deployment.credentials:
            continue
        for source in deployment.missing_credentials:
            if source.startswith("/") and os.path.exists(source):
                remedy = "write the key, or remove the file"
                return f"the deployment {quoted(name)} would have no credential any more: {source} has none; {remedy}"
    return None


def finding_of(problem: Problem) -> Finding:
    """Return the problem as it is shown to operators."""
    position = (problem.file, problem.line, problem.column, dotted(problem.path))
    return Finding(problem.severity, *position, problem.message, problem.hint)


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """A request to change the active config."""

    cause: Cause
    who: str = ""
    """The name that its sender gave."""
    signature: str | None = field(default=None, repr=False)
    """The signature on the plan, if it is not in the file next to the config."""
    is_again: bool = False
    """Whether this is a repetition without a new request, because an obstacle may be gone."""


class Prepared(Value, frozen=True):
    """The result of a compile, checked and ready to be activated."""

    problems: tuple[Problem, ...]
    findings: tuple[Finding, ...]
    """The problems as they are shown to operators. A thread makes them: there may be thousands."""
    state: CompiledState | None = None
    """The state to activate. None if it must not become active."""
    changes: Changes = Changes()
    is_unsigned: bool = False
    is_judged: bool = True
    """Whether the config is the cause of the result, and not a failure of the gateway."""


class VersionActivator(Value, frozen=True):
    """Applies the rules for activation of one gateway. `serving_problem` is why this process cannot serve a version."""

    job: CompileJob
    serving_problem: Callable[[ConfigVersion], str | None]
    change_log: ChangeLog | None

    def prepare(
        self, change_request: ChangeRequest, active: CompiledState, pinned: PinnedRollback | None, outcome: Outcome
    ) -> Prepared:
        """Return the state that may follow `active`. The change is recorded before it takes effect."""
        problems, changes, is_unsigned = outcome.problems, Changes(), False
        is_judged = outcome.is_judged
        if (state := state_of(outcome)) is not None:
            answers = answer_changes(active.config, state.config, time.time())
            changes = replace(changes_between(active.config, state.config), answers=answers)
            notes = listener_notes(active.config, state.config) if active.config.gives_roles else ()
            problems = (*problems, *(Problem("", 0, 0, ("token_issuers",), it, severity="warning") for it in notes))
            reason = self.serving_problem(state.config)
            if reason is None and change_request.cause != "rollback":
                reason = emptied_credential(active.config, state.config)
            if reason is None and self.change_log is not None:
                try:
                    reason = self._record(self.change_log, change_request, active, pinned, state, answers)
                    is_unsigned = reason is not None
                except StateError as error:
                    reason, is_judged = f"it cannot be recorded, so it was not activated: {error}", False
            if reason is not None:
                job = pinned.instead_of(self.job) if pinned is not None else self.job
                problems, state = (*problems, job.problem(reason)), None
        return Prepared(problems, tuple(map(finding_of, problems)), state, changes, is_unsigned, is_judged)

    def _record(
        self,
        change_log: ChangeLog,
        change_request: ChangeRequest,
        active: CompiledState,
        pinned: PinnedRollback | None,
        state: CompiledState,
        answers: tuple[AnswerChange, ...],
    ) -> str | None:
        """Record the activation. Return which signature is missing, or None. Raises StateError."""
        from gateway.changes.change_log import NotSigned, read_signature, review_change, signature_file

        signature_path = signature_file(Path(self.job.path))
        try:
            reviewed = review_change(
                active, state, time.time(), lambda: change_request.signature or read_signature(signature_path), answers
            )
            change_log.record_switch(
                reviewed,
                state,
                change_request.cause,
                change_request.who,
                pinned.overrides if pinned is not None else "",
            )
        except NotSigned as error:
            return str(error)
        return None

    def reject(
        self, change_request: ChangeRequest, active: str, problems: tuple[Problem, ...], *, is_judged: bool
    ) -> Prepared:
        """Record an attempt that is rejected whatever its result, and return it. `active` is the version that stays."""
        prepared = Prepared(problems, tuple(map(finding_of, problems)), is_judged=is_judged)
        self.record_rejected(change_request, active, prepared)
        return prepared

    def record_rejected(self, change_request: ChangeRequest, active: str, prepared: Prepared) -> None:
        """Record a rejected attempt. `active` is the version that stays active."""
        if self.change_log is None:
            return
        errors = [str(problem) for problem in prepared.problems if problem.severity == "error"]
        try:
            self.change_log.record_rejection(
                change_request.cause, change_request.who, active, errors, unsigned=prepared.is_unsigned
            )
        except StateError as error:
            logger().error("audit_failed", detail=str(error))
