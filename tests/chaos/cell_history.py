"""The history of a cell under faults, and the rules that it must have kept. Pure: a history in, violations out.

All times are Unix times of the machine that runs the experiment. A rule yields a sentence for each violation.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

from gateway.model.refusal_reason import STATUS
from providers.value import Value

RECOVERY_S = 10.0
"""Within this time after the end of a fault, all is as before."""
NAMED_S = 30.0
"""Within this time after its begin, `gateway status` names the cause of a fault."""
FOLLOWED_S = 2.0
"""Within this time, each instance that reaches the database follows a command, and knows that a key is blocked."""
_LATE_IN_TURN = 2
ALONE_S = 1.5
"""An instance notes at most once a second that it counts alone."""
_DAY_S = 86400
UNCERTAIN = "?"
MADE = "made"
"""The client whose keys are made and replaced."""


class Fault(Value, frozen=True):
    """A fault of the nemesis.

    Attributes:
        kind: The deed, such as `kill` or `stop`.
        target: The process that it meets: an instance, `valkey`, `database`, or both as `g0-valkey` for a partition.
        store: The store that instances miss meanwhile, or an empty text.
        cuts: Whether requests that run may end without an answer.
        loses: Whether the database lost what was written meanwhile.
    """

    kind: str
    target: str
    began_s: float
    ended_s: float
    store: str = ""
    cuts: bool = False
    loses: bool = False

    def meets(self, began_s: float, ended_s: float, after_s: float = RECOVERY_S) -> bool:
        """Return whether the fault, with its recovery, overlaps a time."""
        return self.began_s <= ended_s and began_s <= self.ended_s + after_s


class Answer(Value, frozen=True):
    """A request of a client, and how it ended. A status of 0 is a connection that ended without a whole answer.

    Attributes:
        code: The code of its error, or `stop` if it was answered with the text for a crisis.
        needs_valkey: Whether a budget with `deny` or a time of use applies.
        user: Of a child, the user.
        kind: The kind of request, such as `chat`; `cry` is a text in a crisis, and `agree` one that needs consent.
        agreed_s: When the user agreed.
    """

    request: str
    client: str
    key: str
    began_s: float
    ended_s: float
    status: int
    code: str = ""
    needs_valkey: bool = False
    user: str = ""
    kind: str = ""
    agreed_s: float = float("inf")


class Call(Value, frozen=True):
    """A call that a provider has received."""

    request: str
    deployment: str
    at_s: float
    ended_s: float = 0.0

    @property
    def client(self) -> str:
        """The client, whose name the request begins with."""
        return self.request.rpartition("-")[0]


class Row(Value, frozen=True):
    """A row of the ledger."""

    call_id: str
    request: str
    client: str
    outcome: str
    amount_nano: int


class Command(Value, frozen=True):
    """A command of an operator. `pinned` is its version, an empty text for a release; `UNCERTAIN` without an answer."""

    given_s: float
    pinned: str


class KeyChange(Value, frozen=True):
    """A key that was made, or that was blocked or replaced. The audit trail has it by its id or hash."""

    key: str
    at_s: float
    named: str = ""


class Look(Value, frozen=True):
    """The report of an instance at a moment: the lost stores, the pinned version, and the one that it serves."""

    at_s: float
    instance: str
    lost: frozenset[str]
    pinned: str
    version: str = ""


class Lease(Value, frozen=True):
    """The judge of the canary, as a look at the database found it."""

    at_s: float
    holder: str
    epoch: int


class History(Value, frozen=True):
    """All that was seen.

    Attributes:
        budgets: The limit of each client with a budget, in nano units of money.
        quotas: The most calls a minute of each deployment with a quota, and of clients with a limit.
        slots: The most calls of each client at the same time.
        signed: The versions that the protected region has signed, or that leave it as it is.
        alone: The times at which an instance could not ask Valkey within 50 ms, so that it used its share.
        day_s: How long a child may chat in a day.
        boundary: The deployments that may receive the calls of each client.
        trails: The faults that the verification of the audit trails has found.
        audited: The keys that a line of an audit trail names.
        limit_s: The longest time of a request.
    """

    answers: tuple[Answer, ...] = ()
    calls: tuple[Call, ...] = ()
    rows: tuple[Row, ...] = ()
    faults: tuple[Fault, ...] = ()
    commands: tuple[Command, ...] = ()
    made: tuple[KeyChange, ...] = ()
    blocks: tuple[KeyChange, ...] = ()
    looks: tuple[Look, ...] = ()
    leases: tuple[Lease, ...] = ()
    trails: tuple[str, ...] = ()
    audited: frozenset[str] = frozenset()
    budgets: Mapping[str, int] = {}
    quotas: Mapping[str, int] = {}
    slots: Mapping[str, int] = {}
    signed: frozenset[str] = frozenset({""})
    alone: frozenset[float] = frozenset()
    day_s: float = 0.0
    boundary: Mapping[str, frozenset[str]] = {}
    limit_s: float = 20.0

    def is_lost(self, at_s: float) -> bool:
        """Return whether the database may have lost what was written about a moment.

        A row is written when its call ends, and a standby or a backup has it a moment later.
        """
        return any(it.loses and it.began_s - self.limit_s <= at_s <= it.ended_s for it in self.faults)

    def misses_valkey(self, began_s: float, ended_s: float) -> bool:
        """Return whether instances have counted alone, or with counters that were lost."""
        is_alone = any(began_s - ALONE_S <= at_s <= ended_s + ALONE_S for at_s in self.alone)
        return is_alone or any(it.store == "valkey" or it.loses for it in self.faults_at(began_s, ended_s))

    def faults_at(self, began_s: float, ended_s: float, after_s: float = RECOVERY_S) -> list[Fault]:
        """Return the faults that overlap a time, with their recovery."""
        return [fault for fault in self.faults if fault.meets(began_s, ended_s, after_s)]


def _has_no_keys(history: History, it: Answer) -> bool:
    """Return whether the key was unknown, and no database could be asked: it is new, or the instance is."""
    faults = history.faults_at(it.began_s, it.ended_s)
    is_new = any(change.key == it.key for change in history.made) or any(fault.cuts for fault in faults)
    return it.code == "keys_unavailable" and is_new and any(fault.store == "database" for fault in faults)


def _is_full(fault: Fault) -> bool:
    """Return whether an instance sends no call, because it cannot keep its row."""
    return fault.store == "journal"


def _without_a_gate(history: History) -> Iterator[Answer]:
    """Yield the third of three answers in turn of a client that the gate was too late for, without a fault.

    Two are documented: an answer of Valkey that takes longer than 50 ms counts as none, also on a busy machine.
    """
    late: Counter[str] = Counter()
    for it in sorted(history.answers, key=lambda answer: answer.began_s):
        is_late = it.code == "gate_unavailable" and not history.faults_at(it.began_s, it.ended_s)
        late[it.client] = late[it.client] + 1 if is_late else 0
        if late[it.client] > _LATE_IN_TURN:
            yield it


def every_call_has_one_row(history: History) -> Iterator[str]:
    """A call that a provider received has one row by its id. A row without such a call was cut off on its way."""
    ids = Counter(row.call_id for row in history.rows)
    yield from (f"the call {name} has {number} rows" for name, number in ids.items() if number > 1)
    received, written = (Counter(it.request for it in seen) for seen in (history.calls, history.rows))
    lost = Counter(call.request for call in history.calls if history.is_lost(call.at_s))
    for name, number in received.items():
        if written[name] < number - lost[name]:
            yield f"{name}: {number} calls were received, and {written[name]} have a row"
    cut = {answer.request for answer in history.answers if history.faults_at(answer.began_s, answer.ended_s)}
    for name, number in written.items():
        if number > received[name] and name not in cut:
            yield f"{name}: {number} rows of {received[name]} calls, without a fault"


def no_budget_is_exceeded(history: History) -> Iterator[str]:
    """The rows of a client with a budget cost at most its limit."""
    spent: Counter[str] = Counter()
    for row in history.rows:
        spent[row.client] += row.amount_nano
    for client, limit in history.budgets.items():
        if spent[client] > limit:
            yield f"{client} spent {spent[client]} of {limit}"


def no_quota_is_exceeded(history: History) -> Iterator[str]:
    """No minute has more calls than the bucket and its refill, and the shares of instances that missed Valkey."""
    times = defaultdict(list)
    for call in history.calls:
        times[call.deployment].append(call.at_s)
        times[call.client].append(call.at_s)
    for name, limit in history.quotas.items():
        of_deployment = sorted(times[name])
        for first, began_s in enumerate(of_deployment):
            within = sum(at_s < began_s + 60 for at_s in of_deployment[first:])
            most = (5 if history.misses_valkey(began_s, began_s + 60) else 2) * limit
            if within > most:
                yield f"{name} received {within} calls in a minute, which may be {most}"
                break


def no_call_leaves_its_boundary(history: History) -> Iterator[str]:
    """Each call was received where its client's boundary allows it."""
    for call in history.calls:
        if call.deployment not in history.boundary.get(call.client, ()):
            yield f"{call.request} was received by {call.deployment}"


def no_slot_is_used_twice(history: History) -> Iterator[str]:
    """A client has at most so many calls at the same time; without Valkey, so many of each of the three instances."""
    for client, limit in history.slots.items():
        calls = sorted((it for it in history.calls if it.client == client), key=lambda call: call.at_s)
        for number, call in enumerate(calls):
            running = 1 + sum(call.at_s < other.ended_s for other in calls[:number])
            if running > (3 * limit if history.misses_valkey(call.at_s, call.at_s) else limit):
                yield f"{call.request} is one of {running} calls of {client}"


def a_day_of_a_child_is_not_exceeded(history: History) -> Iterator[str]:
    """A chat is refused when the day is over, which ends at midnight. An emptied Valkey begins anew."""
    anew = [fault.ended_s for fault in history.faults if fault.store == "valkey" or fault.loses]
    began: dict[str, float] = {}
    for it in sorted(history.answers, key=lambda answer: answer.began_s):
        if not it.user or it.status != 200:
            continue
        last = max([it.began_s // _DAY_S * _DAY_S, *(at_s for at_s in anew if at_s < it.began_s)])
        began[it.user] = max(began.get(it.user, it.began_s), last)
        if it.began_s > began[it.user] + history.day_s + FOLLOWED_S:
            yield f"{it.request} was answered {it.began_s - began[it.user]:.0f} s after the first chat of {it.user}"


def no_unsigned_version_is_applied(history: History) -> Iterator[str]:
    """No instance serves a version that changes the protected region without a signature."""
    for look in history.looks:
        if look.version not in history.signed:
            yield f"{look.instance} serves {look.version} at {look.at_s:.1f}"


def every_request_has_a_documented_answer(history: History) -> Iterator[str]:
    """Each request got an answer, or an error of the table, in time. A connection ends only with its instance."""
    for it in history.answers:
        if it.ended_s - it.began_s > history.limit_s:
            yield f"{it.request} took {it.ended_s - it.began_s:.1f} s"
        if it.status == 200:
            continue
        faults = history.faults_at(it.began_s, it.ended_s)
        if it.status == 0 or (it.status in (502, 503, 504) and not it.code):
            # The balancer's own answer: no instance could be asked.
            if not any(fault.cuts for fault in faults):
                yield f"{it.request} was cut off with {it.status}, and no instance had a fault"
        elif STATUS.get(it.code) != it.status or it.code == "internal_error":
            yield f"{it.request} got {it.status} {it.code!r}"
        elif it.code == "gate_unavailable" and not it.needs_valkey and not any(_is_full(fault) for fault in faults):
            yield f"{it.request} of {it.client} got {it.code}, and has no budget"


def what_needs_no_store_is_answered(history: History) -> Iterator[str]:
    """A client without a budget is answered whatever store is lost."""
    blocked = {block.key for block in history.blocks}
    for it in history.answers:
        if it.needs_valkey or it.key in blocked or it.status == 200 or it.code in ("overloaded", "rate_limited"):
            continue
        if _has_no_keys(history, it) or it.client == MADE:  # its keys have rules of their own
            continue
        if not any(fault.cuts or _is_full(fault) for fault in history.faults_at(it.began_s, it.ended_s)):
            yield f"{it.request} of {it.client} got {it.status} {it.code!r}, and needs no store"


def all_is_as_before_after_a_fault(history: History) -> Iterator[str]:
    """Ten seconds after a fault, and before the next one, each request within its budget is answered."""
    for it in _without_a_gate(history):
        yield f"{it.request} got {it.code} at {it.began_s:.1f}, more than {RECOVERY_S:g} s after every fault"


def a_crisis_is_answered_with_help(history: History) -> Iterator[str]:
    """A text in a crisis gets the text for it, apart from a judge that a stopped instance could not ask in time."""
    for it in history.answers:
        if (
            it.kind == "cry"
            and it.status == 200
            and it.code != "stop"
            and not history.faults_at(it.began_s, it.ended_s)
        ):
            yield f"{it.request} got the answer of a model"


def nothing_is_sent_without_consent(history: History) -> Iterator[str]:
    """A deployment that needs consent receives a request after its user has agreed."""
    agreed_s = {it.request: it.agreed_s for it in history.answers if it.kind == "agree"}
    for call in history.calls:
        if call.deployment == "asked" and call.at_s < agreed_s.get(call.request, float("inf")):
            yield f"{call.request} was sent before the user had agreed"


def a_made_key_is_accepted(history: History) -> Iterator[str]:
    """A key works two seconds after it was made, until it is replaced, unless the database has lost it."""
    ended_s = {change.key: change.at_s for change in history.blocks}
    for made in history.made:
        for it in history.answers:
            is_due = made.at_s + FOLLOWED_S < it.began_s and it.ended_s < ended_s.get(made.key, float("inf"))
            if it.key != made.key or not is_due or it.status != 401 or history.is_lost(made.at_s):
                continue
            if not history.faults_at(it.began_s - FOLLOWED_S, it.ended_s):
                yield f"{it.request} was refused {it.began_s - made.at_s:.1f} s after its key was made"


def a_change_of_a_key_is_in_the_trail(history: History) -> Iterator[str]:
    """An acknowledged change is a line of an audit trail, so that one which the database has lost can be made again."""
    for change in (*history.made, *history.blocks):
        if change.named not in history.audited:
            yield f"no trail names the key {change.named}, which was changed at {change.at_s:.1f}"


def a_blocked_key_is_refused(history: History) -> Iterator[str]:
    """A blocked key gets no answer two seconds later; while an instance misses the database, when it is back.

    A database that was replaced may have lost a block, which the audit trail of an instance lists.
    """
    for block in history.blocks:
        if history.is_lost(block.at_s):
            continue
        waits_s = [fault.ended_s for fault in history.faults if fault.store == "database" or fault.cuts]
        met = [fault for fault in history.faults_at(block.at_s, block.at_s + FOLLOWED_S) if fault.ended_s in waits_s]
        until_s = max([block.at_s + FOLLOWED_S, *(fault.ended_s + RECOVERY_S for fault in met)])
        for it in history.answers:
            if it.key == block.key and it.began_s > until_s and it.status == 200:
                yield f"{it.request} was answered {it.began_s - block.at_s:.1f} s after its key was blocked"


def a_rollback_reaches_all_instances(history: History) -> Iterator[str]:
    """Each instance serves by the last command, apart from two seconds, and from faults with their recovery."""
    for look in history.looks:
        given = [command for command in history.commands if command.given_s <= look.at_s]
        if not given or given[-1].pinned == UNCERTAIN or look.at_s - given[-1].given_s < FOLLOWED_S + RECOVERY_S:
            continue
        if history.faults_at(look.at_s - FOLLOWED_S, look.at_s):
            continue
        if look.pinned != given[-1].pinned:
            yield f"{look.instance} has pinned {look.pinned!r}, and the last command {given[-1].pinned!r}"


def one_judge_at_each_moment(history: History) -> Iterator[str]:
    """The epochs of the judge only grow, and an epoch has one holder, until the database loses them.

    An instance of release 1.0.1 that leaves deletes its lease, so that they begin again.
    """
    holders: dict[int, str] = {}
    last, before_s = 0, 0.0
    for lease in history.leases:
        lost = any(it.loses and before_s <= it.ended_s <= lease.at_s for it in history.faults)
        if lost or any(it.kind == "update" for it in history.faults_at(before_s, lease.at_s)):
            holders, last = {}, 0
        before_s = lease.at_s
        if lease.epoch < last:
            yield f"the epoch {lease.epoch} follows {last}"
        last = max(last, lease.epoch)
        if holders.setdefault(lease.epoch, lease.holder) != lease.holder:
            yield f"the epoch {lease.epoch} has two holders"


def the_audit_trails_verify(history: History) -> Iterator[str]:
    """Each line of each audit trail is as it was written."""
    yield from history.trails


def status_names_a_lost_store(history: History) -> Iterator[str]:
    """A store that is lost for longer is named within 30 s, and no longer 10 s after it is back.

    A slow store and a full disk, whose journal has room of its own, need not be lost.
    """
    for fault in history.faults:
        if not fault.store or fault.kind in ("slow", "fill_disk") or fault.ended_s - fault.began_s <= NAMED_S:
            continue
        during = [look for look in history.looks if fault.began_s + NAMED_S <= look.at_s <= fault.ended_s]
        if during and not any(fault.store in look.lost for look in during):
            yield f"{fault.store} was lost for {fault.ended_s - fault.began_s:.0f} s, and no status named it"
    for look in history.looks:
        if look.lost and not history.faults_at(look.at_s, look.at_s):
            yield f"{look.instance} names {', '.join(sorted(look.lost))} at {look.at_s:.1f}, and no fault is near"


RULES: Mapping[str, Callable[[History], Iterator[str]]] = {
    rule.__name__: rule
    for rule in (
        every_call_has_one_row,
        no_budget_is_exceeded,
        no_quota_is_exceeded,
        no_slot_is_used_twice,
        a_day_of_a_child_is_not_exceeded,
        no_call_leaves_its_boundary,
        no_unsigned_version_is_applied,
        every_request_has_a_documented_answer,
        what_needs_no_store_is_answered,
        all_is_as_before_after_a_fault,
        a_crisis_is_answered_with_help,
        nothing_is_sent_without_consent,
        a_made_key_is_accepted,
        a_blocked_key_is_refused,
        a_change_of_a_key_is_in_the_trail,
        a_rollback_reaches_all_instances,
        one_judge_at_each_moment,
        the_audit_trails_verify,
        status_names_a_lost_store,
    )
}


def violations(history: History) -> Mapping[str, list[str]]:
    """Return the violations of each rule that was broken."""
    found = {name: list(rule(history)) for name, rule in RULES.items()}
    return {name: texts for name, texts in found.items() if texts}


def longest_recovery_s(history: History) -> float:
    """Return the longest time from the end of a fault to its last sign: a lost store, or a refusal without the gate."""
    signs = [look.at_s for look in history.looks if look.lost]
    signs += [it.began_s for it in history.answers if it.code == "gate_unavailable"]
    waits_s = (min((at_s - it.ended_s for it in history.faults if it.ended_s <= at_s), default=0.0) for at_s in signs)
    # Later ones have no fault as their cause, and are judged by the rules.
    return max((wait_s for wait_s in waits_s if wait_s <= RECOVERY_S), default=0.0)
