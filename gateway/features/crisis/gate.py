"""Judge whether the user of a chat is in a crisis, before any provider gets the prompt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from gateway.execution.exchange import Exchange, Judged, Said
from gateway.execution.judging import VERDICT_S, Judging, names_of, pieces_of, policy_of
from gateway.execution.run import PlanExecutor, PlanExhausted, RunContext
from gateway.features.crisis.given_texts import GivenTexts
from gateway.features.crisis.model import CrisisNote, CrisisRules
from gateway.features.crisis.policy import crisis_of, texts_to_judge
from gateway.features.feature import Process
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment
from gateway.model.moderation import Moderation, NoVerdict
from gateway.policy.labels import without_labels
from gateway.policy.region_text import said
from gateway.policy.verdicts import found_in
from gateway.usage.refusals import CallRefused
from providers.chat import AssistantMessage, ChatRequest, UserMessage
from providers.moderations.values import ModerationInput, ModerationResult
from providers.value import replace


class _Asked(msgspec.Struct):
    """The texts that the judges of a chat get: those of the user since the last answer, and those before it (`former`).

    The judges of moderation get the latter. A text that passes is remembered under the name of the policy.
    """

    policy: str
    judges: Sequence[Deployment]
    new: list[str]
    moderation: Moderation | None = None
    former: list[Said] = msgspec.field(default_factory=list)


class CrisisGate:
    """The gate of a process. See `RegionGate`."""

    part = CrisisRules

    def __init__(self, process: Process) -> None:
        self._executor = process.executor
        self._current = process.current
        self._passed = process.passed
        self._given = GivenTexts(process.user_key, process.gate)

    def start(self) -> None:
        """See `RegionGate`: nothing runs."""

    async def aclose(self) -> None:
        """See `RegionGate`: nothing runs."""

    def move_clock(self, ahead_s: int) -> None:
        """See `RegionGate`: nothing depends on the clock."""

    async def before_decision(self, exchange: Exchange, region: Region) -> None:
        """Record the help for the user of a chat, if a crisis is found.

        Judged are what the user wrote since the last answer, by the judges of a crisis, and what stands before it, by
        those of moderation: a text that they flag is found as if it had just been written, unless the crisis text was
        given for it. So moderation, which follows, finds no category of a crisis in the history. Raises NoVerdict if
        the region requires one, and CallRefused if a budget does not pay for it.
        """
        rules, request, note = region.parts.of(CrisisRules), exchange.request, exchange.record.noted(CrisisNote)
        if rules is None or not isinstance(request, ChatRequest) or (note is not None and note.help is not None):
            return
        asked = await self._asked(exchange, region, rules, request)
        found: dict[str, frozenset[str]] = {}
        failure = await self._ask(exchange, region, rules, asked, found) if asked.new or asked.former else None
        if found:
            await self._help(exchange, rules, asked, found)
        elif failure is None:
            passed = self._passed.of(exchange.asker)
            for text in asked.new:
                passed.add_text(asked.policy, text)
            exchange.record.note(CrisisNote("passed"))
        elif isinstance(failure, NoVerdict) and rules.is_open:
            exchange.record.verdicts_refused |= failure.is_refused
            exchange.record.note_duty("crisis_unjudged")
            exchange.record.note(CrisisNote("unjudged"))
        else:
            if isinstance(failure, NoVerdict):
                exchange.record.note(CrisisNote("failed"))
            raise failure

    async def _asked(self, exchange: Exchange, region: Region, rules: CrisisRules, request: ChatRequest) -> _Asked:
        """Return what the judges are asked, without what they have passed or what the crisis text was given for."""
        messages = request.messages if region.texts is None else without_labels(request.messages, region.texts)
        judges = [exchange.config.deployments[name] for name in rules.judges]
        policy = f"crisis;{names_of(judges)};{','.join(rules.categories)}"
        new, former, answers = texts_to_judge(messages, rules)
        passed = self._passed.of(exchange.asker)
        asked = _Asked(policy, judges, [text for text in new if not passed.has(policy, text)])
        moderation = exchange.config.moderation.get(region.name)
        if moderation is None or not moderation.input:
            return asked
        asked.moderation = moderation
        if former or answers:
            of_input, of_output = policy_of(moderation, moderation.input), policy_of(moderation, moderation.output)
            # An answer that its judges have passed is not judged as one of the history, as in moderation.
            answers = [text for text in answers if not passed.has(of_output, text)]
            texts: list[Said] = [*((UserMessage, it) for it in former), *((AssistantMessage, it) for it in answers)]
            texts = [it for it in texts if not passed.has(of_input, it[1])]
            exchange.judged = exchange.judged or Judged()
            known = await self._given.known(exchange.config, exchange.location, exchange.asker, texts)
            exchange.judged.excepted = dict.fromkeys(known, frozenset(rules.categories))
            asked.former = [it for it in texts if it not in known]
        return asked

    async def _ask(
        self, exchange: Exchange, region: Region, rules: CrisisRules, asked: _Asked, found: dict[str, frozenset[str]]
    ) -> Exception | None:
        """Add each text in which a crisis is found, with its categories. Return why not all are judged, or None."""
        judging = _judging(self._executor, self._current, exchange, region, rules.categories)
        moderation = asked.moderation
        failure: Exception | None = await _find(
            judging, asked.judges, asked.new, lambda it: found_in(it, rules.categories), found
        )
        if not asked.former or moderation is None:
            return failure

        def of_moderation(verdict: ModerationResult) -> frozenset[str]:
            return found_in(verdict, rules.categories) if moderation.flags(verdict) else frozenset()

        judging = replace(judging, until=time.monotonic() + VERDICT_S, takes_contradictions=False, categories=None)
        former = [*dict.fromkeys(text for _, text in asked.former)]
        failed = await _find(judging, moderation.input, former, of_moderation, found)
        # Without a verdict on the history, moderation decides by its own rules.
        return failure or (failed if not isinstance(failed, NoVerdict) else None)

    async def _help(
        self, exchange: Exchange, rules: CrisisRules, asked: _Asked, found: Mapping[str, frozenset[str]]
    ) -> None:
        """Record the help for the user of these texts."""
        sentence = said(rules.text, exchange.location, exchange.caller.accept_language)
        crisis = crisis_of(rules, exchange.location, sentence, frozenset().union(*found.values()))
        exchange.record.note(CrisisNote(crisis.then, crisis))
        if asked.moderation is not None and exchange.judged is not None:
            # Nothing else asks for them.
            texts: list[Said] = [*((UserMessage, text) for text in asked.new), *asked.former]
            texts = [it for it in texts if it[1] in found]
            exchange.judged.excepted |= dict.fromkeys(texts, frozenset(rules.categories))
            await self._given.add(exchange.config, exchange.location, exchange.asker, texts)


async def _find(
    judging: Judging,
    judges: Sequence[Deployment],
    texts: Sequence[str],
    finds: Callable[[ModerationResult], frozenset[str]],
    found: dict[str, frozenset[str]],
) -> NoVerdict | CallRefused | PlanExhausted | None:
    """Add each text in which something is found, with what it is. Return why not all of them are judged, or None."""
    of_pieces: dict[ModerationInput, frozenset[str]] = {}

    def collect(content: ModerationInput, result: ModerationResult) -> None:
        of_pieces[content] = finds(result)

    failure = None
    try:
        await judging.find(judges, [piece for text in texts for piece in pieces_of(text)], collect)
    except (NoVerdict, CallRefused, PlanExhausted) as error:
        failure = error
    for text in texts:
        if names := frozenset().union(*[of_pieces.get(piece, frozenset()) for piece in pieces_of(text)]):
            found[text] = found.get(text, frozenset()) | names
    return failure


def _judging(
    executor: PlanExecutor,
    current: Callable[[], ConfigVersion],
    exchange: Exchange,
    region: Region,
    categories: Iterable[str],
) -> Judging:
    """Return how the judges are asked. Moderation asks none of them again about the same text."""
    config, client, user, record = exchange.config, exchange.caller.client, exchange.user, exchange.record
    context = RunContext(config.resilience, exchange.deadline, record, lambda _: None, asker=exchange.asker)
    if executor.accounting is not None:
        context.usage = exchange.account = executor.accounting.request(config, client, user, record, exchange.account)
    if exchange.judged is None:
        exchange.judged = Judged()
    assistant = exchange.assistant.for_use("moderations")
    return Judging(
        executor,
        config,
        current,
        context,
        assistant,
        region,
        client,
        user,
        exchange.judged.verdicts,
        until=time.monotonic() + VERDICT_S,
        takes_contradictions=True,
        categories=frozenset(categories),
    )
