"""Load the config version that a process starts with: the config file, or the version of a rollback.

Opens the state directory, if there is one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.changes.compile_job import CompiledState, CompileJob, Outcome, compile_here, distinct_warnings, state_of
from gateway.changes.compile_process import Child, CompileFailed
from gateway.changes.compiler import Compiling
from gateway.files import path_exists
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import CommandError, DatabaseUnreachable, StateError, expect_file
from gateway.settings import Settings
from gateway.undo import undone_on_failure
from providers.value import Value, replace

if TYPE_CHECKING:
    from gateway.changes.cell import CellMember
    from gateway.changes.change_log import ChangeLog, PinnedRollback, ReviewedChange
    from gateway.config.real_deployment import RealDeployment
    from gateway.state.history import TrailHead, Version

_LOCK_WAIT_S = 3.0
"""How long a start waits for the lock: the workers of a supervisor that was killed hold it until they end."""


class InitialConfig(Value, frozen=True):
    """The config version that a process starts with. Without a state directory there is no record of changes."""

    config: ConfigVersion
    outcome: Outcome
    change_log: ChangeLog | None = None
    pinned: PinnedRollback | None = None
    cell: CellMember | None = None

    @property
    def state(self) -> CompiledState:
        """The version with its source and its warnings."""
        return CompiledState(self.config, self.outcome.written, distinct_warnings(self.outcome.problems))


class InitialConfigLoader:
    """Opens the state directory and compiles the config while the rest of the process is being loaded.

    `demo` serves the config as a demo even if it does not state that, and `real` is the real deployment that is added
    to it. `simulated` puts every deployment at a simulator. `child` compiles if it is already started. `inherited_lock`
    is the lock of the state directory, if the running gateway hands it over.
    """

    def __init__(
        self,
        settings: Settings,
        child: Child | None = None,
        *,
        demo: bool = False,
        real: RealDeployment | None = None,
        simulated: bool = False,
        inherited_lock: int | None = None,
    ) -> None:
        self._settings = settings
        self._config_path = settings.config
        self._change_log: ChangeLog | None = None
        self._pinned: PinnedRollback | None = None
        is_written = settings.state_dir is not None
        job = self._job = CompileJob(str(self._config_path), demo, written=is_written, real=real, simulated=simulated)
        if settings.state_dir is not None:
            from gateway.changes.change_log import ChangeLog
            from gateway.installation import note_named_users

            try:
                self._change_log = ChangeLog(
                    settings.state_dir, _log_audit_head, wait_s=_LOCK_WAIT_S, inherited_lock=inherited_lock
                )
                note_named_users(settings.state_dir)
                self._pinned = self._change_log.active_rollback()
            except StateError as error:
                if self._change_log is not None:
                    self._change_log.close()
                raise CommandError(str(error)) from None
            if self._pinned is None and not path_exists(self._config_path):
                self._change_log.close()
                expect_file(self._config_path)
        self._compiling = Compiling(self._pinned.instead_of(job) if self._pinned is not None else job, child)

    def begin(self) -> InitialConfig:
        """Return the version to start with. Raises CommandError if there is none.

        A start with simulators is not recorded here but in `with_simulators`, which returns the version that is served.
        """
        initial = self._compiled(self._compiling)
        if initial.config.demo or initial.config.simulated:
            return initial
        try:
            initial = self._in_cell(initial)
            if self._settings.require_state and initial.cell is None:
                self._refuse_unknown_predecessor(initial)
        except StateError as error:
            if self._change_log is not None:
                self._change_log.close()
            raise CommandError(str(error)) from None
        return _recorded(initial, self._config_path)

    def _compiled(self, compiling: Compiling) -> InitialConfig:
        try:
            outcome = compiling.outcome()
        except CompileFailed as error:
            raise CommandError(f"{self._config_path}: {error}") from None
        return _initial_config(outcome, self._config_path, self._change_log, self._pinned)

    def _in_cell(self, initial: InitialConfig) -> InitialConfig:
        """Return the version that the cell serves, with this instance as its member. Raises StateError, CommandError.

        A new history gets the version that the cell activated last, for the comparison with this one.
        """
        stores, change_log = initial.config.stores, self._change_log
        if stores is None or stores.database is None or change_log is None or self._settings.state_dir is None:
            return initial
        from gateway.installation import needs_packages

        with needs_packages():
            from gateway.changes.cell import CellMember
        member = CellMember(stores.database, change_log, self._settings.state_dir, self._settings.instance)
        with undone_on_failure(member.close):
            try:
                member.adopt_predecessor()
                wanted = member.pin_of_cell()
            except DatabaseUnreachable as error:
                if change_log.pointer() is None and (protected := _protected(initial.config)):
                    raise StateError(
                        f"{', '.join(protected)}: protected, and the last version of the cell is not known: {error}"
                    ) from None
                return replace(initial, cell=member)
            if wanted is not None and wanted != (self._pinned.version.version if self._pinned is not None else ""):
                self._pinned = change_log.rollback_target(wanted, "", self._config_path) if wanted else None
                job = self._pinned.instead_of(self._job) if self._pinned is not None else self._job
                initial = self._compiled(Compiling(job))
        return replace(initial, cell=member)

    def _refuse_unknown_predecessor(self, initial: InitialConfig) -> None:
        """Raise StateError if regions are protected and there is no earlier version to compare them with."""
        is_known = self._change_log is not None and self._change_log.pointer() is not None
        protected = _protected(initial.config)
        if protected and not is_known:
            raise StateError(
                f"{', '.join(protected)}: protected, and no earlier version is known to compare with, so a change "
                "without a signature would not be noticed. Start with the state directory of before; if this is the "
                "first start, set GATEWAY_REQUIRE_STATE=false for it"
            )


def _protected(config: ConfigVersion) -> list[str]:
    return [name for name, region in config.regions.items() if region.protected]


def with_simulators(initial: InitialConfig, order: CompileJob) -> InitialConfig:
    """Compile a version again, now that its simulators have ports. Raises CommandError."""
    job = initial.pinned.instead_of(order) if initial.pinned is not None else order
    path = Path(order.path)
    return _recorded(_initial_config(compile_here(job, os.environ), path, initial.change_log, initial.pinned), path)


def _initial_config(
    outcome: Outcome, config_path: Path, change_log: ChangeLog | None, pinned: PinnedRollback | None
) -> InitialConfig:
    """Return the initial version of this outcome. Raises CommandError if the config cannot be used."""
    if (state := state_of(outcome)) is not None:
        if pinned is not None:
            outcome = replace(outcome, files={**outcome.files, str(config_path): pinned.file})
        return InitialConfig(state.config, outcome, change_log, pinned)
    # Not imported at the top: rendering problems loads the compiler, which a serving process does not need.
    from gateway.config.check_report import rejected_config

    rejection = rejected_config(outcome.problems)
    if pinned is None:
        raise rejection
    raise CommandError(
        f"a rollback replaced {config_path} by version {pinned.version.version}, which cannot be used any more:\n"
        f"{rejection.shown}\n`gateway rollback --release` makes {config_path} the active config again"
    )


def _recorded(initial: InitialConfig, config_path: Path) -> InitialConfig:
    """Record the start if there is a state directory. Raises CommandError."""
    change_log = initial.change_log
    if change_log is None:
        return initial
    try:
        _record_start(initial, change_log, config_path)
    except (StateError, CommandError) as error:
        # The trail already has the start: without this line it would seem that the version was served.
        with suppress(StateError):
            change_log.note("stopped", {"pid": os.getpid(), "detail": "nothing was served"})
        if initial.cell is not None:
            initial.cell.close()
        change_log.close()
        raise CommandError(str(error)) from None
    return initial


def _log_audit_head(head: TrailHead, event: str) -> None:
    """Log the head of the audit trail. If logs are shipped elsewhere, a truncated trail is noticed."""
    from gateway.telemetry.log import logger

    logger().info("audit", entry=event, number=head.number, hash=head.hash)


def _record_start(initial: InitialConfig, change_log: ChangeLog, config_path: Path) -> None:
    """Record which version is served from now on. Raises StateError; raises CommandError if a signature is missing."""
    from gateway.changes.change_log import NotSigned
    from gateway.telemetry.log import logger

    pointer, version = change_log.pointer(), initial.config.version
    before = change_log.active_version(initial.outcome.written)
    new = initial.state
    change_log.note("started", {"config_version": version, "config": str(config_path), "pid": os.getpid()})
    if initial.pinned is not None:
        detail = f"{config_path} is not active since a rollback; `gateway rollback --release` activates it"
        logger().warning("rolled_back", config_version=version, file_active=False, detail=detail)
    if pointer is None or pointer.version != version:
        try:
            reviewed = review_from(before, new, config_path)
        except NotSigned as error:
            change_log.record_rejection("start", "", pointer.version if pointer else "", [str(error)], unsigned=True)
            raise CommandError(str(error)) from None
        if before is None and _protected(initial.config):
            detail = "there is no earlier config to compare with, so changes of its protected regions were not checked"
            logger().warning("protected_unchecked", config_version=version, detail=detail)
        overrides = initial.pinned.overrides if initial.pinned is not None else ""
        change_log.record_switch(reviewed, new, "start", "", overrides)


def compile_in_child(
    text: bytes | None, name: str, config_path: Path, *, secrets: bool, catalogues: str = ""
) -> Outcome:
    """Compile this text, or the config file, in a child process. Raises StateError if no process can be started."""
    job = CompileJob(str(config_path), text=text, name=name, catalogues=catalogues, secrets=secrets, written=True)
    try:
        return Compiling(job).outcome()
    except CompileFailed as error:
        raise StateError(f"{name}: {error}") from None


def review_from(
    before: Version | None, new: CompiledState, config_path: Path, signature: str | None = None
) -> ReviewedChange:
    """Return the reviewed change from a version of the history, without secrets. Raises NotSigned and StateError."""
    from gateway.changes.change_log import ReviewedChange, read_signature, review_change, signature_file
    from gateway.changes.plan import NO_CONFIG_VERSION, ChangePlan

    def find_signature() -> str | None:
        return signature or read_signature(signature_file(config_path))

    if before is None or new.written is None:
        return review_change(CompiledState(NO_CONFIG_VERSION, None), new, time.time(), find_signature)
    states = []
    for it in (before, new.written):
        name, outcome = f"version {it.version}", None
        if it.text is not None:
            outcome = compile_in_child(it.text, name, config_path, secrets=False, catalogues=it.catalogues)
        state = state_of(outcome) if outcome is not None else None
        if state is None:
            return ReviewedChange(
                ChangePlan(before.version, new.config.version),
                *_review_without_comparison(before, new, find_signature()),
            )
        states.append(state)
    reviewed = review_change(states[0], states[1], time.time(), find_signature)
    # The facts of the catalogue may have changed since, so the old text may now compile to another version.
    return replace(reviewed, plan=replace(reviewed.plan, before=before.version, after=new.config.version))


def _review_without_comparison(before: Version, new: CompiledState, jws: str | None) -> tuple[Mapping[str, str], str]:
    """Return the protected regions, all as changed, of a version that does not compile any more, and the signer."""
    from gateway.changes.change_log import NotSigned
    from gateway.config.yaml_document import parse_yaml
    from gateway.signing import BadSignature, signer_of

    if before.text is None or new.written is None:
        return {}, ""
    values: dict[str, Any] = parse_yaml(before.text, before.version).values
    regions = values.get("regions")
    named = regions.items() if isinstance(regions, dict) else ()
    protected = {name: "it cannot be compared" for name, it in named if isinstance(it, dict) and it.get("protected")}
    if not protected:
        return {}, ""
    try:
        if jws is None:
            raise BadSignature("there is no signature")
        signer = signer_of(jws, values.get("admin_keys") or (), before.content, new.written.content)
    except BadSignature as error:
        raise NotSigned(
            f"{', '.join(protected)}: protected, and version {before.version} cannot be compiled any more, so every "
            f"change needs a signature: {error}"
        ) from None
    return protected, signer
