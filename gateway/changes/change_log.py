"""What is kept of the switches of one gateway: the history, the audit trail, and the rule that a protected region's
change is signed. It blocks, so it is called beside the loop, by one caller at a time.

What can't be written down doesn't happen: a switch is noted before it takes effect. Its lines of the trail are written
between what the history writes and the end of that transaction, so that whatever fails leaves the history as it was;
where a line is there by then, another takes it back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.changes.compile_job import CompiledState, CompileJob
from gateway.changes.plan import ChangePlan, changed_keys, plan_of
from gateway.changes.plan_checks import checks_of, protected_changes
from gateway.changes.plan_text import in_short, plan_data
from gateway.config.source_text import digest, read_files, secrets_in_clear
from gateway.files import open_file
from gateway.operator_errors import NotKept, StateError
from gateway.state.audit import Audit, TrailHead
from gateway.state.history import Activation, History, Pointer, Version, open_history
from gateway.state.lock import Lock

MOST_SIGNATURE_BYTES = 16 * 1024
_MOST_FINDINGS = 20
_MOST_NAMED = 200
_NO_FILE = "missing"
"""What is put aside where no file can be read; in the history, an empty text says that nothing is."""
_NOT_CONFIRMED = "history.db doesn't know of this switch: it was never served, or an earlier history.db was put there"
_Line = tuple[str, Mapping[str, object]]
"""An event of the trail, with what is told of it."""


class NotSigned(Exception):
    """A protected region would change, and nobody who counts has signed that; the message says what and how."""


@dataclass(frozen=True, slots=True)
class PinnedRollback:
    """A rollback: this version is active in place of the config file. file: the digest of what stood there then."""

    version: Version
    file: str

    @property
    def overrides(self) -> str:
        """The digest again; empty where the file says the same as the version, so that nothing is put aside."""
        is_the_same = self.version.text is not None and digest(self.version.text) == self.file
        return "" if is_the_same else self.file or _NO_FILE

    def instead_of(self, order: CompileJob) -> CompileJob:
        """The order for this version, where the file would be compiled."""
        return replace(order, text=self.version.text, name=f"version {self.version.version}")


@dataclass(frozen=True, slots=True)
class ReviewedChange:
    """A switch that may be. protected: the protected regions that it changes; signer: the key that lets it."""

    plan: ChangePlan
    protected: Mapping[str, str]
    signer: str = ""


def review_change(
    old: CompiledState, new: CompiledState, now_s: float, signature: Callable[[], str | None]
) -> ReviewedChange:
    """The plan of a switch; raises NotSigned where it needs a signature that isn't there."""
    warnings = tuple(warning for warning in new.warnings if warning not in old.warnings)
    before = old.written.values if old.written is not None else {}
    after = new.written.values if new.written is not None else {}
    plan = plan_of(old.table, new.table, tuple(changed_keys(before, after)))
    plan = replace(plan, checks=checks_of(old.table, new.table, warnings, now_s))
    protected = protected_changes(old.table, new.table, plan)
    if not protected or old.written is None or new.written is None:
        return ReviewedChange(plan, protected)
    told = "; ".join(f"{name}: {why}" for name, why in protected.items())
    jws = signature()
    if jws is None:
        raise NotSigned(
            f"a protected region would change ({told}): sign the plan with `gateway plan --sign KEYFILE`, and put the "
            "signature beside the config"
        )
    from gateway.signing import (
        BadSignature,  # heavy, and few configs have a protected region
        signer_of,
    )

    try:
        signer = signer_of(jws, old.table.admin_keys, old.written.content, new.written.content)
    except BadSignature as error:
        raise NotSigned(f"a protected region would change ({told}), and its signature doesn't count: {error}") from None
    return ReviewedChange(plan, protected, signer)


def signature_file(config: Path) -> Path:
    """Where the signature of a config's change is looked for."""
    return config.with_name(f"{config.name}.sig")


def read_signature(path: Path) -> str | None:
    """What stands there, None if nothing does."""
    try:
        with open_file(path) as file:
            return file.read(MOST_SIGNATURE_BYTES).decode("ascii", "replace").strip() or None
    except OSError:
        return None


class ChangeLog:
    """The history and the audit trail of a state directory that is ours; raises StateError."""

    def __init__(
        self, directory: Path, told: Callable[[TrailHead, str], None] = lambda _, __: None,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.lock = Lock(directory)
        self._clock = clock
        self._told = told
        # At the end of the process, the thread of a switch may not have come back yet.
        self._one_at_a_time = threading.RLock()
        with ExitStack() as undone:  # by whatever fails: nothing is held by a log that there isn't
            undone.callback(self.lock.release)
            self.history: History = open_history(directory)
            undone.callback(self.history.close)
            self._audit = Audit(directory, self.history.audit_head())
            undone.pop_all()
        self._owed: list[_Line] = []
        """What must be told before anything else."""
        if self._audit.mended:
            self._owed.append(("audit_mended", {"detail": self._audit.mended}))
        if self._audit.unconfirmed:
            self._owed.append(("not_confirmed", {"lines": list(self._audit.unconfirmed), "detail": _NOT_CONFIRMED}))

    def close(self) -> None:
        """Let go of the directory."""
        with self._one_at_a_time:
            self._audit.close()
            self.history.close()
            self.lock.release()

    def note(self, event: str, fields: Mapping[str, object]) -> None:
        """One line of the audit trail; raises StateError."""
        with self._one_at_a_time:
            self._pay()
            self._append(event, fields)
            self.history.keep_audit_head(self._audit.head)

    def _pay(self) -> None:
        while self._owed:
            self._append(*self._owed[0])
            del self._owed[0]

    def _append(self, event: str, fields: Mapping[str, object]) -> None:
        head = self._audit.append(event, datetime.fromtimestamp(self._clock(), UTC), fields)
        self._told(head, event)

    @contextmanager
    def _switching(self, lines: Iterable[_Line], active: str) -> Iterator[None]:
        """Whatever the block writes into the history is kept with these lines of the trail; raises StateError where
        that fails, and the active table stays."""
        with self._one_at_a_time:
            self._pay()
            before = self._audit.head.number
            try:
                with self.history.at_once():
                    yield
                    for event, fields in lines:
                        self._append(event, fields)
                    self.history.keep_audit_head(self._audit.head)
            except BaseException as error:
                self._take_back(range(before + 1, self._audit.head.number + 1), active, error)
                raise

    def _take_back(self, lines: range, active: str, error: BaseException) -> None:
        """Say of lines that are there already that it was not done; raises StateError where that must wait."""
        if not lines:
            return
        told = str(error) or type(error).__name__
        self._owed.append(("not_done", {"lines": list(lines), "table": active, "detail": told}))
        try:
            self._pay()
        except StateError as failed:
            raise StateError(
                f"{told}; the audit trail has it in line {lines[0]} though, and can't be written now to say otherwise "
                f"({failed}): that will be its next line"
            ) from error

    def switched(self, judged: ReviewedChange, new: CompiledState, cause: str, who: str, overrides: str = "") -> None:
        """The table of `new` is about to be active; raises StateError where that can't be written down."""
        plan, written = judged.plan, new.written
        if written is None:
            return
        told = {"table": plan.after, "content": written.content, "before": plan.before, "cause": cause, "who": who}
        if plan.before == plan.after:
            with self._switching([("reloaded", told)], plan.before):
                self.history.point(Pointer(plan.after, overrides))
            return
        secrets = secrets_in_clear(written.values)
        version = Version(
            written.version,
            written.content,
            None if secrets else written.text,
            f"a secret is written in it ({', '.join(secrets[:3])})" if secrets else "",
        )
        with self._switching(_lines_of(judged, told), plan.before):
            at_s, data = self._clock(), plan_data(plan)
            activation = Activation(version.version, plan.before, cause, who, at_s, in_short(plan), data)
            self.history.add(version, activation, overrides)

    def rejected(self, cause: str, who: str, active: str, errors: list[str], *, unsigned: bool = False) -> None:
        """A try that changed nothing; raises StateError."""
        event = "signature_refused" if unsigned else "rejected"
        shown = {"errors": len(errors), "findings": errors[:_MOST_FINDINGS]}
        self.note(event, {"cause": cause, "who": who, "table": active, **shown})

    def wanted(self, word: str | None, active: str, config: Path) -> PinnedRollback:
        """The version that a rollback from the active one means, whose text is kept; raises NotKept."""
        name = word if word is not None else self.history.before(active)
        if name is None:
            raise NotKept("there is no version before this one; `gateway history` lists what there is")
        found = self.history.find(name)
        if found.text is None:
            raise NotKept(f"version {found.version} can't be compiled again: {found.why_not}")
        return PinnedRollback(found, read_files([str(config)])[str(config)])

    def aside(self, config: Path) -> PinnedRollback | None:
        """The rollback that holds, as the config file is still the one that was put aside; raises StateError."""
        pointer = self.pointer()
        file = read_files([str(config)])[str(config)]
        if pointer is None or not pointer.overrides or (file or _NO_FILE) != pointer.overrides:
            return None
        return PinnedRollback(self.history.find(pointer.version), file)

    def pointer(self) -> Pointer | None:
        """Which version was active last."""
        return self.history.pointer()


def _lines_of(judged: ReviewedChange, told: Mapping[str, object]) -> Iterator[_Line]:
    """What the trail says of a switch to another table."""
    plan = judged.plan
    if judged.signer:
        yield "signature_accepted", {"table": plan.after, "regions": dict(judged.protected), "key": judged.signer}
    changes = {"changes": in_short(plan), "keys": list(plan.keys[:_MOST_NAMED])}
    unsigned = {"unsigned_regions": list(judged.protected)} if judged.protected and not judged.signer else {}
    yield "rolled_back" if told["cause"] == "rollback" else "activated", {**told, **changes, **unsigned}
    for name in plan.switched_off:
        yield "kill_switch", {"deployment": name, "table": plan.after, "cause": told["cause"], "who": told["who"]}
