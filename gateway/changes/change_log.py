"""Record the changes of one gateway in the history and the audit trail, and require signatures for protected regions.

All calls block, so they run outside the event loop, one at a time.

A change that cannot be recorded is not made: it is recorded before it takes effect. The lines of the audit trail are
written inside the transaction of the history, so a failure leaves the history unchanged. If a line was already written
by then, a further line revokes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from gateway.changes.compile_job import CompiledState, CompileJob
from gateway.changes.plan import ChangePlan, changed_values, plan_of
from gateway.changes.plan_checks import checks_of, protected_changes
from gateway.changes.plan_text import plan_data, plan_summary
from gateway.changes.stored_versions import verified
from gateway.config.problems import ConfigRejected
from gateway.config.sensitive_keys import secrets_in_clear
from gateway.config.source_text import SourceText, digest, read_files
from gateway.files import open_file
from gateway.model.answer_change import AnswerChange
from gateway.model.approval import days_at
from gateway.model.endings import endings_of
from gateway.model.status import audited
from gateway.operator_errors import NotStored, StateError
from gateway.policy.territory_answers import answer_changes
from gateway.state.audit import Audit, AuditLine, TrailReader
from gateway.state.history import Activation, History, Pointer, TrailHead, Version, open_history
from gateway.state.lock import Lock
from providers.value import Value, replace

MOST_SIGNATURE_BYTES = 16 * 1024
_MOST_FINDINGS = 20
_MOST_NAMED = 200
_NO_FILE = "missing"
"""The digest of an unreadable config file that a rollback replaced. An empty text means that no file was replaced."""
_NOT_CONFIRMED = "history.db does not have this switch: it was never served, or an older history.db was restored"
_Line = tuple[str, Mapping[str, object]]
"""An event of the audit trail with its fields."""


class NotSigned(Exception):
    """A change of a protected region has no accepted signature. The message names the region and the fix."""


class PinnedRollback(Value, frozen=True):
    """A rollback that is in effect: this version is active in place of the config file, until it is released.

    `file` is the digest of the config file that was reported last; first, that of the file at the time of the rollback.
    """

    version: Version
    file: str

    @property
    def overrides(self) -> str:
        """The digest of the replaced file, for the history. It is never empty."""
        return self.file or _NO_FILE

    @property
    def has_the_text_of_the_file(self) -> bool:
        """Whether the file has the same text as the version."""
        return self.version.text is not None and digest(self.version.text) == self.file

    def instead_of(self, job: CompileJob) -> CompileJob:
        """Return the job that compiles this version in place of the file."""
        version = self.version
        return replace(job, text=version.text, name=f"version {version.version}", catalogues=version.catalogues)


class ReviewedChange(Value, frozen=True):
    """A change that is permitted, the protected regions that it changes, in words, and the id of the signing key."""

    plan: ChangePlan
    protected: Mapping[str, str]
    signer: str = ""


def review_change(
    old: CompiledState,
    new: CompiledState,
    now_s: float,
    signature: Callable[[], str | None],
    answers: tuple[AnswerChange, ...] | None = None,
) -> ReviewedChange:
    """Return the plan of a change. Raises NotSigned if it needs a signature and has no accepted one.

    `now_s` is the Unix time of the decisions, `signature` returns the signature on the plan, and `answers` are the
    territories with another answer, if the caller has compared them already.
    """
    plan = plan_with_checks(old, new, now_s, answers)
    protected = protected_changes(old.config, new.config, plan)
    if not protected or old.written is None or new.written is None:
        return ReviewedChange(plan, protected)
    details = "; ".join(f"{name}: {why}" for name, why in protected.items())
    jws = signature()
    if jws is None:
        raise NotSigned(
            f"a protected region would change ({details}): sign the plan with `gateway plan --sign KEYFILE`, and save "
            "the signature next to the config"
        )
    from gateway.signing import (
        BadSignature,  # loads a large library, and few configs have a protected region
        signer_of,
    )

    try:
        signer = signer_of(jws, old.config.admin_keys, old.written.content, new.written.content)
    except BadSignature as error:
        message = f"a protected region would change ({details}), and its signature is not accepted: {error}"
        raise NotSigned(message) from None
    return ReviewedChange(plan, protected, signer)


def plan_with_checks(
    old: CompiledState,
    new: CompiledState,
    now_s: float,
    answers: tuple[AnswerChange, ...] | None = None,
    accepted: Collection[str] = (),
) -> ChangePlan:
    """Return the plan of a change with the checks. See `review_change`. `accepted` may lose their answer."""
    warnings = tuple(warning for warning in new.warnings if warning not in old.warnings)
    before = old.written.values if old.written is not None else {}
    after = new.written.values if new.written is not None else {}
    plan = plan_of(old.config, new.config, tuple(changed_values(before, after)))
    if answers is None:
        answers = answer_changes(old.config, new.config, now_s)
    checks = checks_of(old.config, new.config, warnings, now_s, answers=answers, accepted=accepted)
    ends = (it for it in endings_of(new.config, days_at(now_s)) if it.bound is not None)
    notes = (f"{it.subject.get('deployment') or it.subject['label']}: {it}" for it in ends)
    return replace(plan, answers=answers, checks=checks, notes=(*plan.notes, *notes))


def signature_file(config: Path) -> Path:
    """Return the path of the signature for a change of this config."""
    return config.with_name(f"{config.name}.sig")


def read_signature(path: Path) -> str | None:
    """Return the content of the signature file, or None if there is none."""
    try:
        with open_file(path) as file:
            return file.read(MOST_SIGNATURE_BYTES).decode("ascii", "replace").strip() or None
    except OSError:
        return None


class ChangeLog:
    """The history and the audit trail of a state directory that this process has locked. Methods raise StateError."""

    def __init__(
        self, directory: Path, on_append: Callable[[TrailHead, str], None] = lambda _, __: None,
        *, wait_s: float = 0.0, inherited_lock: int | None = None,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.lock = Lock(directory, wait_s, inherited_lock)
        self._on_append = on_append
        # At the end of the process, the thread of a change may still be running.
        self._one_at_a_time = threading.RLock()
        with ExitStack() as cleanup:  # if a step fails, release everything that was opened before it
            cleanup.callback(self.lock.release)
            self.history: History = open_history(directory)
            cleanup.callback(self.history.close)
            self._pending: list[_Line] = []
            """Lines that must be written before any other."""
            self._audit = self._open_audit()
            cleanup.pop_all()
        self._reader = TrailReader(directory)
        self._pointer_before: Pointer | None = None
        self.is_paused = False

    def _open_audit(self) -> Audit:
        audit = Audit(self.directory, self.history.audit_head())
        if audit.repair:
            self._pending.append(("audit_mended", {"detail": audit.repair}))
        if audit.unconfirmed:
            self._pending.append(("not_confirmed", {"lines": list(audit.unconfirmed), "detail": _NOT_CONFIRMED}))
        return audit

    def close(self) -> None:
        """Close the files and release the lock of the directory."""
        with self._one_at_a_time:
            if not self.is_paused:
                self._audit.close()
            self.history.close()
            self.lock.release()

    def pause(self) -> None:
        """Let the next gateway write the record. Until `resume`, this process writes nothing. Raises StateError."""
        with self._one_at_a_time:
            self._write_pending()
            self._pointer_before = self.pointer()
            self._audit.close()
            self.is_paused = True

    def resume(self) -> None:
        """Write the record again, because the next gateway has ended without serving. Raises StateError."""
        with self._one_at_a_time:
            self._audit = self._open_audit()
            self.is_paused = False
            before, after = self._pointer_before, self.pointer()
            if before is None or after is None or before == after:
                return
            details = {"config_version": before.version, "before": after.version, "cause": "restart_failed", "who": ""}
            with self._switching([("activated", details)], before.version):
                self.history.point(before)

    def note(self, event: str, fields: Mapping[str, object]) -> None:
        """Append one line to the audit trail. Raises StateError."""
        with self._one_at_a_time:
            self._write_pending()
            self._append(event, fields)
            self.history.store_audit_head(self._audit.head)

    def _write_pending(self) -> None:
        if self.is_paused:
            raise StateError("a restart is under way, and the next gateway writes the record")
        while self._pending:
            self._append(*self._pending[0])
            del self._pending[0]

    def _append(self, event: str, fields: Mapping[str, object]) -> None:
        self._on_append(self._audit.append(event, datetime.fromtimestamp(time.time(), UTC), fields), event)

    @contextmanager
    def _switching(self, lines: Iterable[_Line], active: str) -> Iterator[None]:
        """Commit what the block writes to the history together with these lines of the audit trail.

        Raises StateError if the commit failed. The active version does not change.
        """
        with self._one_at_a_time:
            self._write_pending()
            before = self._audit.head.number
            try:
                with self.history.transaction():
                    yield
                    for event, fields in lines:
                        self._append(event, fields)
                    self.history.store_audit_head(self._audit.head)
            except BaseException as error:  # a change that is not committed must not stay in the trail
                self._take_back(range(before + 1, self._audit.head.number + 1), active, error)
                raise

    def _take_back(self, lines: range, active: str, error: BaseException) -> None:
        """Revoke lines that were already written. Raises StateError if the revocation has to wait."""
        if not lines:
            return
        details = str(error) or type(error).__name__
        self._pending.append(("not_done", {"lines": list(lines), "config_version": active, "detail": details}))
        try:
            self._write_pending()
        except StateError as failed:
            raise StateError(
                f"{details}; line {lines[0]} of the audit trail already has the switch, and the correction cannot be "
                f"written now ({failed}): it will be the next line"
            ) from error

    def record_switch(
        self, reviewed: ReviewedChange, new: CompiledState, cause: str, who: str, overrides: str = ""
    ) -> None:
        """Record that `new` is about to become active. Raises StateError."""
        plan, written = reviewed.plan, new.written
        if written is None:
            return
        details = {
            "config_version": plan.after,
            "content": written.content,
            "before": plan.before,
            "cause": cause,
            **audited(who),
        }
        if plan.before == plan.after:
            with self._switching([("reloaded", details)], plan.before):
                self.history.point(Pointer(plan.after, overrides))
            return
        secrets = secrets_in_clear(written.values)
        version = Version(
            written.version,
            written.content,
            None if secrets else written.text,
            f"a secret is written in it ({', '.join(secrets[:3])})" if secrets else "",
            "" if secrets else written.catalogues,
        )
        with self._switching(_lines_of(reviewed, details), plan.before):
            at_s, data = time.time(), plan_data(plan)
            activation = Activation(version.version, plan.before, cause, who, at_s, plan_summary(plan), data)
            self.history.add(version, activation, overrides)

    def record_rejection(self, cause: str, who: str, active: str, errors: list[str], *, unsigned: bool = False) -> None:
        """Record an attempt that changed nothing. Raises StateError."""
        event = "signature_refused" if unsigned else "rejected"
        shown = {"errors": len(errors), "findings": errors[:_MOST_FINDINGS]}
        self.note(event, {"cause": cause, **audited(who), "config_version": active, **shown})

    def rollback_target(self, word: str | None, active: str, config: Path) -> PinnedRollback:
        """Return the version, or by None the previous one, to roll back to, also by a prefix. Raises NotStored."""
        name = word if word is not None else self.history.before(active)
        if name is None:
            raise NotStored("there is no earlier version; `gateway history` lists the versions")
        target = verified(self.history.find(name))
        if target.text is None:
            raise NotStored(f"version {target.version} cannot be compiled again: {target.why_not}")
        return PinnedRollback(target, read_files([str(config)])[str(config)])

    def active_rollback(self) -> PinnedRollback | None:
        """Return the rollback that is in effect, if it was not released. Raises StateError."""
        pointer = self.pointer()
        if pointer is None or not pointer.overrides:
            return None
        return PinnedRollback(verified(self.history.find(pointer.version)), pointer.overrides.replace(_NO_FILE, ""))

    def active_version(self, active: SourceText | None = None) -> Version | None:
        """Return the version that was active last. Raises StateError if its text does not have its hash.

        A text that is equal to that of `active`, the source of the config that becomes active, is not parsed again.
        """
        pointer = self.pointer()
        found = self.history.find_exactly(pointer.version) if pointer is not None else None
        return verified(found, active) if found is not None else None

    def keep(self, version: Version) -> None:
        """Store a version that another instance of the cell has activated, after a comparison with its hash."""
        with self._one_at_a_time:
            self.history.keep(verified(version))

    def adopt(self, version: Version) -> None:
        """Make a version of another instance the one that a new history is compared with."""
        with self._switching([("adopted", {"config_version": version.version})], version.version):
            self.history.keep(verified(version))
            self.history.point(Pointer(version.version))

    def recorded_after(
        self, activation: int, line: int, limit: int
    ) -> tuple[list[tuple[int, Version, Activation]], list[AuditLine]]:
        """Return the activations and the audit lines after these numbers, at most `limit` of each."""
        with self._one_at_a_time:
            lines = self._reader.after(line, limit) if line < self._audit.head.number else []
            return self.history.activations_after(activation, limit), lines

    def pointer(self) -> Pointer | None:
        """Return which version was active last."""
        return self.history.pointer()

    def ever_gave_roles(self) -> bool:
        """Return whether a version of the history gives roles at the admin listener, as far as its text is stored."""
        return any(map(_gives_roles, self.history.versions()))


def _gives_roles(version: Version) -> bool:
    from gateway.config.yaml_document import parse_yaml

    if version.text is None or b"token_issuers" not in version.text:
        return False
    try:
        issuers = parse_yaml(version.text, version.version).values.get("token_issuers")
    except ConfigRejected:
        return True  # the stored text was changed
    return isinstance(issuers, dict) and any(isinstance(it, dict) and it.get("roles") for it in issuers.values())


def _lines_of(reviewed: ReviewedChange, details: Mapping[str, object]) -> Iterator[_Line]:
    """Yield the lines of the audit trail for a change to another version."""
    plan = reviewed.plan
    if reviewed.signer:
        accepted = {"config_version": plan.after, "regions": dict(reviewed.protected), "key": reviewed.signer}
        yield "signature_accepted", accepted
    changes = {"changes": plan_summary(plan), "keys": list(plan.keys[:_MOST_NAMED])}
    unsigned = {"unsigned_regions": list(reviewed.protected)} if reviewed.protected and not reviewed.signer else {}
    yield "rolled_back" if details["cause"] == "rollback" else "activated", {**details, **changes, **unsigned}
    by = {member: details[member] for member in ("cause", "who", "how") if member in details}
    for name in plan.switched_off:
        yield "kill_switch", {"deployment": name, "config_version": plan.after, **by}
