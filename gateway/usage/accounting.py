"""Hold the worst cost of each call to a provider before it is sent, and record what it used when it has ended.

Theory of operation. `Accounting` belongs to a process, `RequestUsage` to a request, `CallUsage` to one upstream call:

    begin     the worst cost is held, with the row if the call is lost; or CallRefused, and nothing is sent
    (sent)    `see` counts what arrives, for an estimate
    end       the hold is settled with the real row, which survives the end of the process. This happens before the last
              byte of the answer is sent, and once: whatever ends a call first decides.
    release   the call was not sent: neither a row nor a cost
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Protocol

import msgspec

from gateway.model.config_version import Client, ConfigVersion
from gateway.model.decision import Step
from gateway.model.deployment import Deployment
from gateway.model.quota import Priority
from gateway.model.record import Allowance, Record
from gateway.model.served import MeasuredInput
from gateway.policy.client_users import former_names, has_issuer
from gateway.usage.amounts import NANO, CallAmount, price_version, shown_nano
from gateway.usage.duty_counts import keys_of
from gateway.usage.estimates import LearnedUsage, SeenOutput, is_plausible, most_input
from gateway.usage.gate import TOKENS, BudgetLimit, GateUnavailable, RateState, UsageGate
from gateway.usage.holding import FollowingCalls, Held, PlannedCall, hold_call, sized
from gateway.usage.quota_lines import LinePlace, QuotaLines
from gateway.usage.quotas import NOTHING, QuotaLimit, QuotaRefusal, quota_limits, row_parts
from gateway.usage.refusals import USER_REQUIRED, CallRefused, QuotaSpent, unavailable
from gateway.usage.spending_limits import SpendingLimits, Terms, internal_terms, terms_of, user_limits
from gateway.usage.token_count import count_tokens
from gateway.usage.usage_counts import UsageCounts
from gateway.usage.usage_row import MOST_TOKENS, CallOutcome, UsageRow, UsageSource, encode_row
from gateway.usage.windows import MINUTE_NS
from gateway.usage.worst_cost import InputSize, facts_of
from providers.catalogue.prices import NO_CURRENCY, SEARCH, Price
from providers.chat import ChatCompletion, ChatRequest, ChoiceFinish, Failed, Finished, StreamEvent, Usage, UsageReport
from providers.failures import Failure, FailureKind

_ANSWERED, _FAILED, _DISCONNECTED, _CANCELLED, _LOST = CallOutcome
_PROVIDER, _ESTIMATED, _NONE = UsageSource
_PSEUDONYM_DIGITS = 32
_NO_USAGE = Usage()
_NOTHING = CallAmount(NO_CURRENCY, 0, 0, None)
_NO_REQUEST = ChatRequest("", ())
_WITH_USAGE = (UsageReport, Failed)
_BROKEN = frozenset(
    {
        FailureKind.CONNECT,
        FailureKind.SILENT,
        FailureKind.INTERRUPTED,
        FailureKind.MALFORMED,
        FailureKind.NOT_JSON,
        FailureKind.NOT_VALID,
        FailureKind.TOO_LARGE,
        FailureKind.DEADLINE,
    }
)
"""Failures after which a provider may charge for the call. All others are errors that the provider states itself."""


class Accounting:
    """Holds and records the calls of one process. Use it from one event loop.

    Args:
        gate: Where costs are held, and rows are kept.
        user_key: Makes the pseudonyms of end users, if the configuration has no key for them.
        overshot: Called when a call has cost more than its hold.
        clock: Returns Unix nanoseconds.
        implausible: Called with the deployment and its provider's count if the count cannot be true, and whether that
            is because of a high input.
        renamed_ns: When this installation began to name users with their issuers (Unix nanoseconds), or 0 for always.

    Attributes:
        is_stopping: Whether the process is ending, so that the gateway stops the calls that end early from now on.
        is_closed: Whether no further call can be recorded.
        open_calls: The calls that have not ended.
        counts: The calls that have ended, for metrics.
        lines: The requests that wait for a quota.
        stated: The headers of the last answer of each deployment with quotas, and when it came (Unix time).
        skips: The skipped steps by quota, deployment and priority, for metrics.
        full: When deployments had no room in a quota, if that was their last call (Unix nanoseconds).
    """

    def __init__(
        self,
        gate: UsageGate,
        user_key: bytes,
        overshot: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = time.time_ns,
        implausible: Callable[[str, Usage, bool], None] = lambda _deployment, _usage, _is_input: None,
        renamed_ns: int = 0,
    ) -> None:
        self.implausible = implausible
        self._renamed_ns = renamed_ns
        self.gate = gate
        self.overshot = overshot
        self.clock = clock
        self.learned = LearnedUsage()
        self.is_stopping = self.is_closed = False
        self.open_calls: set[CallUsage] = set()
        self.counts = UsageCounts()
        self.lines = QuotaLines(clock)
        self.stated: dict[str, tuple[Mapping[str, str], float]] = {}
        self.skips = Counter[tuple[str, ...]]()
        self.full: dict[str, int] = {}
        self._user_key = user_key
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def without_room(self) -> frozenset[str]:
        """Return the deployments that had no room in a quota at their last call, within a minute."""
        since_ns = self.clock() - MINUTE_NS
        return frozenset(name for name, at_ns in self.full.items() if at_ns >= since_ns)

    def request(
        self,
        config: ConfigVersion,
        client: Client | None,
        user: str | None,
        record: Record,
        former: RequestUsage | None = None,
    ) -> RequestUsage:
        """Return the accounting of a client's request. It goes on with the account of the former decisions about it.

        Raises CallRefused if the request must name its end user, and does not.
        """
        terms = terms_of(config, client)
        pseudonym = end_user_pseudonym(config, self._user_key, user) if user is not None else None
        if terms.limits.user_budgets:
            limits = _with_user(terms.limits, pseudonym, keeps_caller=_keeps_caller(record))
            if user is not None and has_issuer(user) and limits.budgets:
                limits = self._with_former(terms, limits, user)
            terms = terms._replace(limits=limits)
        usage = RequestUsage(self, terms, record, pseudonym, terms.priority)
        if former is not None:
            usage.named_cap = former.named_cap
            if former.has_paid:
                usage.add(former)
        return usage

    def _with_former(self, terms: Terms, limits: SpendingLimits, user: str) -> SpendingLimits:
        """Return the limits with the budgets of the user under former names, while their windows last.

        The amount that was spent under such a name counts in its own counter, which refuses as that of the present name
        does.
        """
        bounds, more = terms.calendar.at(self.clock()), list[BudgetLimit]()
        for name in former_names(terms.config, user):
            rules = terms.limits.user_budgets
            if not has_issuer(name):  # only what was spent before: now it is the user that a client asserts
                rules = tuple(it for it in rules if bounds[it.per].start_ns < self._renamed_ns)
            former = end_user_pseudonym(terms.config, self._user_key, name)
            more += user_limits(limits.client or "", former, rules)
        return msgspec.structs.replace(limits, budgets=(*limits.budgets, *more)) if more else limits

    def internal_request(self, config: ConfigVersion, record: Record) -> RequestUsage:
        """Return the accounting of calls that no client asked for, such as shadow traffic."""
        terms = internal_terms(config)
        usage = RequestUsage(self, terms, record, None, terms.priority)
        usage.stopped = _CANCELLED
        return usage

    async def count_duties(self, record: Record, kinds: Iterable[str]) -> None:
        """Count what a request did for duties of these kinds. It survives the end of the process."""
        await self.gate.count(keys_of(record, kinds, self.clock()))

    def new_call(self) -> str:
        """Return an id that is never used again."""
        return f"{self._prefix}-{next(self._numbers)}"

    async def aclose(self) -> None:
        """Record the calls that are still open. Their requests were cancelled, but may not have ended yet."""
        self.is_stopping = self.is_closed = True
        await asyncio.gather(*(call.stopped() for call in tuple(self.open_calls)), return_exceptions=True)


def end_user_pseudonym(config: ConfigVersion, user_key: bytes, user: str) -> str:
    """Return the pseudonym of an end user. `user_key` makes it if the config has no `secrets.identity`."""
    secret = config.secrets.oldest_identity
    return _pseudonym(secret.reveal().encode() if secret is not None else user_key, user)


def known_pseudonyms(config: ConfigVersion, user_keys: Iterable[bytes], user: str) -> tuple[str, ...]:
    """Return the pseudonyms of an end user under each key that is known: the others are of keys that are gone."""
    keys = [secret.reveal().encode() for secret in reversed(config.secrets.identity)]
    return tuple(dict.fromkeys(_pseudonym(key, user) for key in (*keys, *user_keys)))


# A request needs it twice: for its rows, and for the time of its user. Few names stay in memory.
@lru_cache(maxsize=8)
def _pseudonym(key: bytes, user: str) -> str:
    digest = hmac.digest(key, b"end user 1\0" + user.encode("utf-8", "replace"), "sha256")
    return f"u_{digest.hex()[:_PSEUDONYM_DIGITS]}"


def _keeps_caller(record: Record) -> bool:
    location = record.decided.location
    return location is None or location.may_be_kept


def _with_user(limits: SpendingLimits, pseudonym: str | None, *, keeps_caller: bool) -> SpendingLimits:
    """Return the limits with the budgets of the end user. They do not apply where the end user may not be kept."""
    users: tuple[BudgetLimit, ...] = ()
    if keeps_caller:
        if pseudonym is None:
            raise CallRefused("user_required", USER_REQUIRED)
        users = user_limits(limits.client or "", pseudonym, limits.user_budgets)
    return msgspec.structs.replace(limits, budgets=(*limits.budgets, *users), user_budgets=())


class RequestUsage(msgspec.Struct, eq=False):
    """The calls of one request.

    Attributes:
        named_cap: The cap that a call of the request got because no cap was stated, or None. No further call gets a
            larger one.
        stopped: The outcome of calls that end early: the client leaves, or the gateway stops them.
        priority: The place of its calls where a quota is full.
        place: Its place in the line of a quota, or None.
    """

    accounting: Accounting
    _terms: Terms
    record: Record
    _user: str | None
    priority: Priority
    named_cap: int | None = None
    stopped: CallOutcome = _DISCONNECTED
    place: LinePlace | None = None
    _open_nano: int = 0
    _following: FollowingCalls | None = None
    _own_nano: int | None = 0
    _vendor_nano: dict[str, int] = {}

    async def begin(
        self, step: Step, sent: ChatRequest, size: InputSize | None = None, *, is_counted: bool = True
    ) -> CallUsage:
        """Hold the worst cost of a call before it is sent. `size`: of its input, if it was measured.

        All calls but counts of tokens count in the quotas of their deployment. Raises CallRefused if the call may not
        be sent, and QuotaSpent if it may not be sent to this deployment now.
        """
        accounting, limits = self.accounting, self._terms.limits
        if accounting.is_closed:
            raise unavailable("the gateway is stopping")
        call = self._call_of(step.deployment, sent, size)
        if not is_counted:
            call.quotas = ()
        try:
            accounting.gate.check()
            if call.quotas and accounting.lines.places:
                hold = sized(call, call.facts.request.max_tokens or call.most_cap)
                if (refusal := accounting.lines.refusal(hold.quotas, self.priority, self.place)) is not None:
                    raise QuotaSpent(str(refusal), refusal)
            if self._following is not None:
                held = await self._following.hold(accounting.gate, call, partial(self._call_of, step.deployment))
            else:
                held = await hold_call(accounting.gate, call)
        except CallRefused as error:
            self._note_rates(error.rates)
            if isinstance(error, QuotaSpent) and not error.is_slot:
                quota = (error.refusal.limit if error.refusal is not None else call.quotas[0]).quota
                accounting.skips[quota, step.deployment.name, str(self.priority)] += 1
                accounting.full[step.deployment.name] = call.row.time_ns
            raise
        except GateUnavailable as error:
            raise unavailable("the store of limits and budgets can't be asked, or rows can't be written") from error
        if limits.rates:
            self._note_rates(held.rates)
        if accounting.full:
            accounting.full.pop(step.deployment.name, None)
        if self.place is not None:
            self.leave_line(has_taken=True)
        if held.sent_cap is not None:
            self.record.shown.max_tokens = held.sent_cap
            if limits.budgets or limits.max_request_nano is not None:  # a quota lowers no further cap
                self.named_cap = held.sent_cap
        self._open_nano += held.hold.amount_nano
        usage = CallUsage(self, held)
        accounting.open_calls.add(usage)
        return usage

    def join_line(self, refusal: QuotaRefusal, most_s: float) -> LinePlace | None:
        """Take a place in the line of a quota, if there is room within this time."""
        self.place = self.accounting.lines.join(refusal, self.priority, most_s)
        return self.place

    def leave_line(self, *, has_taken: bool = False) -> None:
        """Give up the place in the line of a quota, if there is one."""
        if self.place is not None:
            self.accounting.lines.leave(self.place, has_taken=has_taken)
            self.place = None

    def _call_of(self, deployment: Deployment, sent: ChatRequest, size: InputSize | None = None) -> PlannedCall:
        """Return a call, whose hold is not sized yet."""
        accounting, (config, limits, conversion, calendar, _) = self.accounting, self._terms
        now_ns, learned, most = accounting.clock(), accounting.learned, limits.max_request_nano
        facts = facts_of(sent, deployment, conversion, now_ns // NANO, size)
        counted_input = min(count_tokens(sent) if size is None else size.tokens, facts.bound)
        about = min(learned.quick_input(deployment.name, counted_input), facts.bound)
        row = self._row(accounting.new_call(), now_ns, deployment, facts.price)
        row.use = sent.use if isinstance(sent, MeasuredInput) else "chat"
        row.input_tokens = facts.bound
        quotas: tuple[QuotaLimit, ...] = ()
        if deployment.quotas or deployment.concurrency is not None:
            try:  # a cheaper `remember`
                quotas = config.memo["quota_limits", deployment.name, self.priority]
            except KeyError:
                quotas = quota_limits(config, deployment, self.priority)
        if facts.audio is not None:
            row.audio_ms, row.characters = facts.audio.own_ms or None, facts.audio.characters or None
        return PlannedCall(
            row,
            facts,
            limits,
            calendar.at(now_ns),
            counted_input,
            facts.running(about, learned.tokens_per_s(deployment.name)),
            learned,
            self.named_cap,
            None if most is None else most - (self._own_nano or 0) - self._open_nano,
            quotas=quotas,
        )

    async def follow(self, former: RequestUsage | None, following: Sequence[ChatRequest]) -> RequestUsage:
        """Return the account of one of several calls of a request, each of which is decided by itself.

        The `former` account is used on, unless another config version decides by now. The calls after this one are
        held, as they are sent, before it is sent.
        """
        if former is not None and former._terms.config is self._terms.config:
            return await former.follow(None, following)
        if former is not None:
            await former.release_ahead()
        is_limited = self._terms.config.quotas or not self._terms.limits.are_none
        if following and self._following is None and is_limited:
            self._following = FollowingCalls()
        if self._following is not None:
            self._following.turn(following)
        return self

    async def release_ahead(self) -> None:
        """Give back what is held for calls that will not be sent."""
        if self._following is not None:
            await self._following.release(self.accounting.gate)

    def _note_rates(self, states: tuple[RateState, ...]) -> None:
        """Show the client how many tokens are left in this minute."""
        for rate, state in zip(self._terms.limits.rates, states, strict=False):
            if rate.unit == TOKENS:
                self.record.shown.token_allowance = Allowance(rate.per_minute, state.remaining, state.full_in_ns / NANO)

    def _row(self, call: str, time_ns: int, deployment: Deployment, price: Price | None) -> UsageRow:
        record, limits, config = self.record, self._terms.limits, self._terms.config
        location = record.decided.location
        region = location.region if location is not None else None
        keeps_caller = _keeps_caller(record)
        return UsageRow(
            call=call,
            time_ns=time_ns,
            request=record.request_id or None if keeps_caller else None,
            client=limits.client,
            project=limits.project,
            user=self._user if keeps_caller else None,
            region=region.name if region is not None else None,
            territory=location.territory if location is not None and keeps_caller else None,
            assistant=record.decided.assistant,
            provider=deployment.provider,
            site=deployment.site,
            deployment=deployment.name,
            processes=deployment.places[1],
            model=deployment.model,
            config_version=config.version,
            price_version=price_version(price) if price is not None else None,
            vendor_currency=price.currency if price is not None else None,
            currency=config.usage.currency,
            usage_source=_ESTIMATED,
            outcome=_LOST,
        )

    def end(self, held_nano: int, amount: CallAmount | None) -> None:
        """Add the cost of a call that has ended, which is None if the price is unknown."""
        self._open_nano -= held_nano
        if amount is None:
            self._add(None, {})
        elif amount is not _NOTHING:
            self._add(amount.own_nano, {amount.currency: amount.vendor_nano})

    @property
    def has_paid(self) -> bool:
        """Whether a call has ended that may cost something."""
        return self._own_nano != 0 or bool(self._vendor_nano)

    def add(self, other: RequestUsage) -> None:
        """Add the cost of other calls that were made for this request, such as verdicts."""
        self._add(other._own_nano, other._vendor_nano)

    def _add(self, own_nano: int | None, vendor_nano: Mapping[str, int]) -> None:
        self._own_nano = None if own_nano is None or self._own_nano is None else self._own_nano + own_nano
        for currency, nano in vendor_nano.items():
            self._vendor_nano[currency] = self._vendor_nano.get(currency, 0) + nano
        self.record.charge = self._charged
        if self._terms.limits.shows_cost:
            self.record.shown.charged = self._charged()

    def _charged(self) -> str | None:
        if self._own_nano is not None:
            return f"{shown_nano(self._own_nano)} {self._terms.config.usage.currency}"
        if len(self._vendor_nano) == 1:
            ((currency, nano),) = self._vendor_nano.items()
            return f"{shown_nano(nano)} {currency}"
        return None


class Transmission(Protocol):
    """A request on its way to a provider."""

    @property
    def is_sent(self) -> bool:
        """Whether a part of it may have been sent."""


class CallUsage(msgspec.Struct, eq=False):
    """One call to a provider, from its hold to its row.

    Attributes:
        held: Its facts and its hold.
        seen: The part of the answer that arrived.
        is_ended: Whether its row was written, or its hold released.
        is_refused: Whether the provider answered with an error status.
        is_silent: Whether it worked on nothing: no byte came, and the deployment answered no other request or a kept
            connection had ended.
        is_unwanted: Whether the gateway stops it, because it needs no more of the answer.
        transmission: Knows whether a part of the call was sent, or None if no part was.
    """

    _request: RequestUsage
    held: Held
    seen: SeenOutput = msgspec.field(default_factory=SeenOutput)
    is_ended: bool = False
    is_refused: bool = False
    is_silent: bool = False
    is_unwanted: bool = False
    transmission: Transmission | None = None
    _most_stated: tuple[int | None, int | None] = None, None
    # The provider's last count, whether it is the final one, and whether it can be true.
    _reported: tuple[Usage, bool, bool] | None = None
    _ended_at_cap: bool = False

    def __post_init__(self) -> None:
        held = self.held
        facts = held.call.facts
        is_capped = facts.request.max_tokens is not None or held.sent_cap is not None
        most = None
        if not facts.deployment.counts_hidden:
            most = most_input(facts.request, facts.bound) if facts.size is None else facts.size.most
        self._most_stated = most, 2 * held.hold.output if is_capped else None
        # The request holds a prompt, and the answer may take minutes.
        facts.request = _NO_REQUEST

    def see(self, events: tuple[StreamEvent, ...]) -> tuple[StreamEvent, ...]:
        """Count what arrived of the answer. Return it with an estimate for a count that cannot be true."""
        self.seen.add(events)
        for position, event in enumerate(events):
            if isinstance(event, _WITH_USAGE) and event.usage is not None:
                judged = self._take_count(event.usage, is_final=isinstance(event, UsageReport))
                if judged is not event.usage:
                    events = (*events[:position], msgspec.structs.replace(event, usage=judged), *events[position + 1 :])
            elif isinstance(event, ChoiceFinish):
                self._note_finish(event.reason)
        if self._reported is None and events and isinstance(events[-1], Finished):
            events = (*events[:-1], UsageReport(self._uncounted()), events[-1])
        return events

    def _note_finish(self, reason: str) -> None:
        """Note whether a choice ended at a cap that the gateway had set."""
        self._ended_at_cap |= reason == "length" and self.held.sent_cap is not None

    async def answered(self, completion: ChatCompletion) -> ChatCompletion:
        """Record a whole answer. Return it with an estimate for a count that cannot be true."""
        if self.is_ended:
            return completion
        for choice in completion.choices:
            self._note_finish(choice.finish_reason)
            message = choice.message
            for text in (message.content, message.reasoning, message.refusal):
                if isinstance(text, str):
                    self.seen.add_text(text)
            for call in message.tool_calls:
                self.seen.add_text(call.name + call.arguments)
            for _ in message.images:
                self.seen.add_image()
        usage = completion.usage
        judged = self._take_count(usage) if usage is not None else self._uncounted()
        if judged is not usage:
            completion = msgspec.structs.replace(completion, usage=judged)
        await self._end(_ANSWERED)
        return completion

    async def counted(self, usage: Usage | None, search_units: int | None = None) -> tuple[Usage | None, int | None]:
        """Record a whole answer without text, such as vectors, by the counts of the provider if there are any.

        Returns both counts as they are charged: an estimate of tokens if theirs cannot be true, and where searches have
        a price the most units that the request can have if theirs is missing or cannot be true.
        """
        if self.is_ended:
            return usage, search_units
        facts = self.held.call.facts
        if usage is not None:
            usage = self._take_count(usage)
        elif facts.audio is not None:
            usage = self._uncounted()
        if facts.tools is not None and (most := facts.tools.get(SEARCH)) is not None:
            if search_units is None or search_units > 2 * most:
                search_units = most
            facts.tools = {**facts.tools, SEARCH: search_units}
        await self._end(_ANSWERED)
        return usage, search_units

    async def ended(self, failure: Failure | None) -> None:
        """Record a stream that has ended: completely, or with a failure."""
        await (self._end(_ANSWERED) if failure is None else self.failed(failure))

    async def failed(self, failure: Failure, usage: Usage | None = None) -> None:
        """Record a failed call, with the provider's count for a whole answer that was refused, or None.

        One whose connection failed was not sent.
        """
        if failure.unsent or not self._is_sent:
            await self.release()
            return
        if usage is not None and self._reported is None:
            self._take_count(usage)
        is_stated = failure.kind not in _BROKEN and not self.seen.deltas and self._reported is None
        self.is_refused = self.is_refused or is_stated
        await self._end(_FAILED)

    async def stopped(self) -> None:
        """Record a call that was stopped before its end. One that was not sent leaves no row."""
        if not self._is_sent:
            await self.release()
            return
        is_ours = self.is_unwanted or self._request.accounting.is_stopping
        await self._end(_CANCELLED if is_ours else self._request.stopped)

    @property
    def _is_sent(self) -> bool:
        return self.transmission is not None and self.transmission.is_sent

    async def release(self) -> None:
        """Give back what was held for a call that was not sent."""
        if self.is_ended:
            return
        self.is_ended = True
        accounting = self._request.accounting
        accounting.open_calls.discard(self)
        self._request.end(self.held.hold.amount_nano, _NOTHING)
        await accounting.gate.settle(self.held.hold.call, 0, 0)

    async def _end(self, outcome: CallOutcome) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        call, hold, request = self.held.call, self.held.hold, self._request
        usage, source = self._usage(outcome)
        facts = call.facts
        price, tools = facts.price, None if self.is_refused else facts.tools
        amount = facts.conversion.cost(usage, price, tools) if price is not None else None
        if source is _NONE and amount is None:
            amount = _NOTHING
        row = call.row
        row.input_tokens, row.output_tokens = usage.prompt_tokens, usage.completion_tokens
        row.cached_tokens, row.cache_write_tokens = usage.cached_tokens, usage.cache_write_tokens
        row.reasoning_tokens, row.usage_source, row.outcome = usage.reasoning_tokens, source, outcome
        if facts.audio is not None:
            row.audio_ms, row.characters = usage.audio_ms or None, usage.characters or None
        own_nano = 0
        if amount is not None:
            row.charge(amount)
            own_nano = amount.own_nano or 0
        accounting = request.accounting
        accounting.open_calls.discard(self)
        accounting.counts.add(row)
        request.end(hold.amount_nano, amount)
        tokens = row.total_tokens
        if (tokens > hold.tokens or own_nano > hold.amount_nano) and not call.limits.are_none:
            accounting.overshot()
        parts = row_parts(row, own_nano) if hold.quotas else NOTHING
        await accounting.gate.settle(hold.call, tokens, own_nano, encode_row(row), parts)

    def _usage(self, outcome: CallOutcome) -> tuple[Usage, UsageSource]:
        """Return what the call has used, and where the numbers come from."""
        call, facts, seen = self.held.call, self.held.call.facts, self.seen
        if facts.audio is not None:
            if self.is_refused:
                return _NO_USAGE, _NONE
            usage, is_reported = facts.audio.counted(self._reported[0] if self._reported is not None else None)
            return usage, _PROVIDER if is_reported else _ESTIMATED
        learned, name = self._request.accounting.learned, facts.deployment.name
        duration_s = (self._request.accounting.clock() - call.row.time_ns) / NANO
        reported, is_final, can_be_true = self._reported or (None, False, False)
        if reported is not None and not can_be_true:
            most, stated = self._most_stated[0], reported.prompt_tokens
            is_input = most is not None and type(stated) is int and most < stated <= MOST_TOKENS
            self._request.accounting.implausible(name, reported, is_input)
            call.row.reported_input_tokens = stated if is_input else None
            reported = None
        if reported is not None:
            # A count before the end may be one from the beginning of the answer.
            if (is_final and not self._lacks_output(reported)) or reported.completion_tokens >= max(seen.deltas, 1):
                if outcome is _ANSWERED:
                    own_count = call.counted_input if self._most_stated[0] is not None else None
                    at_cap = self._ended_at_cap
                    learned.learn(call.owner, name, reported, facts.choices, duration_s, at_cap=at_cap)
                    learned.learn_input(name, reported.prompt_tokens, facts.bound, own_count)
                return reported, _PROVIDER
            return msgspec.structs.replace(reported, completion_tokens=self._output(seen.tokens)), _ESTIMATED
        if self.is_refused:
            return _NO_USAGE, _NONE
        output = seen.tokens
        if outcome is not _ANSWERED and not output and not self.is_silent:
            output = learned.unseen_output(name, duration_s)
        return self._estimated(output), _ESTIMATED

    def _take_count(self, reported: Usage, *, is_final: bool = True) -> Usage:
        """Note a provider's count. Return it, or an estimate if it cannot be true, for the client, log and metrics."""
        if (audio := self.held.call.facts.audio) is not None:
            self._reported = reported, is_final, True
            counted, is_counted = audio.counted(reported)
            self._request.record.shown.usage_is_estimated = not is_counted
            return counted
        can_be_true = is_plausible(reported, *self._most_stated)
        self._reported = reported, is_final, can_be_true
        is_counted = can_be_true and not self._lacks_output(reported)
        self._request.record.shown.usage_is_estimated = not is_counted
        if is_counted:
            return reported
        output = self._output(self.seen.tokens)
        return msgspec.structs.replace(reported, completion_tokens=output) if can_be_true else self._estimated(output)

    def _uncounted(self) -> Usage:
        """Return the estimate of an answer whose provider has counted nothing, for a client that reads the count."""
        self._request.record.shown.usage_is_estimated = True
        audio = self.held.call.facts.audio
        return self._estimated(self.seen.tokens) if audio is None else audio.own

    def _lacks_output(self, reported: Usage) -> bool:
        """Return whether a provider counted no output of an answer that has some."""
        return not reported.completion_tokens and self.seen.deltas > 0

    def _estimated(self, output: int) -> Usage:
        """Return the gateway's own count: the best estimate, and not the bound that was held."""
        call, learned = self.held.call, self._request.accounting.learned
        tokens = min(learned.uncounted_input(call.facts.deployment.name, call.counted_input), call.facts.bound)
        return Usage(tokens, self._output(output))

    def _output(self, tokens: int) -> int:
        """Return an estimate of the output, which is at most the cap."""
        return min(tokens, self.held.hold.output)
