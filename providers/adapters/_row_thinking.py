"""How much to think, in a vendor's own words: a switch, an effort, a budget, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping

from providers.adapters._row import Row, Thinking
from providers.catalogue.models import ModelFacts
from providers.chat import AllowedTools, ChatRequest, NamedTool

__all__ = ["thinking_fields"]

_LADDER = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def thinking_fields(
    request: ChatRequest, row: Row, facts: ModelFacts
) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Parts of the body: what no field of the request may change, and what one of the vendor's own may.

    Nothing asked is nothing said: the provider's default holds. But a model that shows its thinking in a stream only
    is told not to think where one JSON is wanted, and one that can't be made to call a tool while it thinks is told
    not to think where one must be called; so is one that takes no tools at all while it thinks.
    """
    form = row.thinking.get(facts.thinking or "default")
    if form is None or ("thinking_only" in facts.flags and not form.effort):
        return {}, {}
    if "tools_without_thinking" in facts.flags and request.tools:
        return form.off or _effort_field(form, "none"), {}
    unthinking = (form.forced_off and _must_call(request)) or (
        request.response_format is not None and "json_without_thinking" in facts.flags
    )
    if unthinking and "thinking_only" not in facts.flags:
        return (form.off if "reasoning" in facts.features else {}), {}
    effort = request.reasoning_effort
    if effort is None:
        quiet = form.streamed and (request.folded or not request.stream) and "thinking_default" in facts.flags
        return {}, form.off if quiet else {}
    effort = _known(effort, form, facts)
    if effort == "none":
        return {}, form.off or _effort_field(form, effort)
    return {}, {**form.on, **_effort_field(form, effort), **_budget(form, effort, facts)}


def _must_call(request: ChatRequest) -> bool:
    choice = request.tool_choice
    return (
        isinstance(choice, NamedTool)
        or choice == "required"
        or (isinstance(choice, AllowedTools) and choice.mode == "required")
    )


def _known(effort: str, form: Thinking, facts: ModelFacts) -> str:
    """The effort in a word that the model knows: its own, the ladder's, else the nearest below, else the least."""
    known = facts.efforts or form.efforts
    if not known or effort in known:
        return effort
    if form.ladder.get(effort) in known:
        return form.ladder[effort]
    place = _LADDER.index(effort) if effort in _LADDER else 0
    below = [word for word in known if _LADDER.index(word) <= place]
    # Who asks for no thinking at all gets the least that there is; who asks for some is not given none.
    if below and (below[-1] != "none" or len(known) == 1):
        return below[-1]
    return next((word for word in known if word != "none"), known[0])


def _effort_field(form: Thinking, effort: str) -> Mapping[str, object]:
    return {form.effort: effort} if form.effort else {}


def _budget(form: Thinking, effort: str, facts: ModelFacts) -> Mapping[str, object]:
    budget = form.budgets.get(effort)
    return {form.budget: budget} if form.budget not in ("", *facts.without) and budget is not None else {}
