"""Load the config version that a process starts with: the config file, or the version that a rollback pinned.

Opens the state directory, if there is one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.changes.compile_job import CompiledState, CompileJob, Outcome, compile_here, told_once
from gateway.changes.compile_process import Child, CompileFailed
from gateway.changes.compiler import Compiling
from gateway.changes.pickling import unpack
from gateway.files import is_there
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import CommandError, StateError, expect_file
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.changes.change_log import ChangeLog, PinnedRollback, ReviewedChange
    from gateway.state.audit import TrailHead
    from gateway.state.history import Version


@dataclass(frozen=True, slots=True)
class InitialConfig:
    """The config version that a process starts with.

    Attributes:
        outcome: The outcome of its compile.
        switch_log: The record of changes; None if there is no state directory.
        aside: The rollback that put the config file aside, if one still holds.
    """

    table: ConfigVersion
    outcome: Outcome
    switch_log: ChangeLog | None = None
    aside: PinnedRollback | None = None


class Opening:
    """The state directory is opened, and the compile goes on, while the rest of the process is still being loaded.

    child: what compiles, if it has been begun already. demo: whether it is served as one, whatever it says itself.
    """

    def __init__(self, settings: Settings, child: Child | None = None, *, demo: bool = False) -> None:
        self._config = settings.config
        self._switch_log: ChangeLog | None = None
        self._aside: PinnedRollback | None = None
        order = CompileJob(str(self._config), demo, written=settings.state_dir is not None)
        if settings.state_dir is not None:
            from gateway.changes.change_log import ChangeLog

            try:
                self._switch_log = ChangeLog(settings.state_dir, _tell)
                self._aside = self._switch_log.aside(self._config)
            except StateError as error:
                if self._switch_log is not None:
                    self._switch_log.close()
                raise CommandError(str(error)) from None
            if self._aside is None and not is_there(self._config):
                self._switch_log.close()
                expect_file(self._config)
        self._compiling = Compiling(self._aside.instead_of(order) if self._aside is not None else order, child)

    def begin(self) -> InitialConfig:
        """Raises CommandError where nothing can be served.

        A demo has to be compiled `with_simulators` yet: what is served, and so written down, is that.
        """
        try:
            outcome = self._compiling.outcome()
        except CompileFailed as error:
            raise CommandError(f"{self._config}: {error}") from None
        begun = _initial_config(outcome, self._config, self._switch_log, self._aside)
        return begun if begun.table.demo else _noted(begun, self._config)


def with_simulators(begun: InitialConfig, order: CompileJob) -> InitialConfig:
    """The demo whose simulators have ports by now; raises CommandError where nothing can be served."""
    wanted = begun.aside.instead_of(order) if begun.aside is not None else order
    config = Path(order.path)
    return _noted(_initial_config(compile_here(wanted, os.environ), config, begun.switch_log, begun.aside), config)


def _initial_config(
    outcome: Outcome, config: Path, switch_log: ChangeLog | None, aside: PinnedRollback | None
) -> InitialConfig:
    """What begins with this outcome; raises CommandError for one that can't be used."""
    if outcome.table is not None:
        table = unpack(outcome.table)
        if aside is not None:
            outcome = replace(outcome, files={**outcome.files, str(config): aside.file})
        return InitialConfig(table, outcome, switch_log, aside)
    # Here and not at the top: rendering problems loads the compiler, which a serving process does not need.
    from gateway.config.check_report import rejected_config

    told = rejected_config(outcome.problems)
    if aside is None:
        raise told
    raise CommandError(
        f"{config} was put aside by a rollback to version {aside.version.version}, which can't be used "
        f"any more:\n{told.shown}\nchange {config}, and it counts again"
    )


def _noted(begun: InitialConfig, config: Path) -> InitialConfig:
    """The same, once it is written down where there is a state directory; raises CommandError."""
    switch_log = begun.switch_log
    if switch_log is None:
        return begun
    try:
        _note(begun, switch_log, config)
    except (StateError, CommandError) as error:
        # It has been told that we started: it would look as if we had served.
        with suppress(StateError):
            switch_log.note("stopped", {"pid": os.getpid(), "detail": "nothing was served"})
        switch_log.close()
        raise CommandError(str(error)) from None
    return begun


def _tell(head: TrailHead, event: str) -> None:
    """The head in the log: where logs are shipped elsewhere, the end of the trail can't be cut off unseen."""
    from gateway.telemetry.log import logger

    logger().info("audit", entry=event, number=head.number, hash=head.hash)


def _note(begun: InitialConfig, switch_log: ChangeLog, config: Path) -> None:
    """Write down what is served from now on; raises StateError, CommandError where that needs a signature."""
    from gateway.changes.change_log import NotSigned, ReviewedChange
    from gateway.changes.plan import ChangePlan
    from gateway.telemetry.log import logger

    pointer, version = switch_log.pointer(), begun.table.version
    new = CompiledState(begun.table, begun.outcome.written, told_once(begun.outcome.problems))
    switch_log.note("started", {"table": version, "config": str(config), "pid": os.getpid()})
    if begun.aside is not None:
        detail = f"{config} is not what is active, since a rollback; the next edit of it wins"
        logger().warning("rolled_back", table=version, file_active=False, detail=detail)
    if pointer is None or pointer.version != version:
        before = switch_log.history.find_exactly(pointer.version) if pointer is not None else None
        try:
            judged = judge_from(before, new, config)
        except NotSigned as error:
            switch_log.rejected("start", "", pointer.version if pointer else "", [str(error)], unsigned=True)
            raise CommandError(str(error)) from None
        if before is None and any(region.protected for region in begun.table.regions.values()):
            detail = (
                "there is no config before this one to compare it with: its protected regions are taken as they are"
            )
            logger().warning("protected_unchecked", table=version, detail=detail)
        switch_log.switched(judged, new, "start", "", begun.aside.overrides if begun.aside is not None else "")
    elif begun.aside is None and pointer.overrides:
        # The file has been changed to what was rolled back to.
        switch_log.switched(ReviewedChange(ChangePlan(version, version), {}), new, "start", "")


def compiled_apart(text: bytes, name: str, config: Path, *, secrets: bool) -> Outcome:
    """What comes of the compile of this text, in a process of its own; raises StateError where none can be had."""
    try:
        return Compiling(CompileJob(str(config), text=text, name=name, secrets=secrets, written=True)).outcome()
    except CompileFailed as error:
        raise StateError(f"{name}: {error}") from None


def judge_from(
    before: Version | None, new: CompiledState, config: Path, signature: str | None = None
) -> ReviewedChange:
    """The plan of a switch from a version of the history; raises NotSigned, StateError.

    No secret is looked up for it: whether one is set is no matter of the config.
    """
    from gateway.changes.change_log import ReviewedChange, read_signature, review_change, signature_file
    from gateway.changes.plan import NO_CONFIG_VERSION, ChangePlan

    def signed() -> str | None:
        return signature or read_signature(signature_file(config))

    if before is None or new.written is None:
        return review_change(CompiledState(NO_CONFIG_VERSION, None), new, time.time(), signed)
    states = []
    for version, text in ((before.version, before.text), (new.written.version, new.written.text)):
        outcome = compiled_apart(text, f"version {version}", config, secrets=False) if text is not None else None
        if outcome is None or outcome.table is None:
            return ReviewedChange(ChangePlan(before.version, new.table.version), *_uncompared(before, new, signed()))
        states.append(CompiledState(unpack(outcome.table), outcome.written, told_once(outcome.problems)))
    judged = review_change(states[0], states[1], time.time(), signed)
    # Its catalogue may say something else by now, and its text then is another version than the one that was active.
    return replace(judged, plan=replace(judged.plan, before=before.version, after=new.table.version))


def _uncompared(before: Version, new: CompiledState, jws: str | None) -> tuple[Mapping[str, str], str]:
    """The protected regions of a version that doesn't compile any more, and who lets them change: in doubt, all do."""
    from gateway.changes.change_log import NotSigned
    from gateway.config.yaml_document import parse_yaml
    from gateway.signing import BadSignature, signer_of

    if before.text is None or new.written is None:
        return {}, ""
    values: dict[str, Any] = parse_yaml(before.text, before.version).values
    regions = values.get("regions")
    named = regions.items() if isinstance(regions, dict) else ()
    protected = {name: "it can't be compared" for name, it in named if isinstance(it, dict) and it.get("protected")}
    if not protected:
        return {}, ""
    try:
        if jws is None:
            raise BadSignature("there is none")
        signer = signer_of(jws, values.get("admin_keys") or (), before.content, new.written.content)
    except BadSignature as error:
        raise NotSigned(
            f"{', '.join(protected)}: protected, and version {before.version} can't be compiled any more, so that "
            f"every change needs a signature: {error}"
        ) from None
    return protected, signer
