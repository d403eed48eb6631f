"""How a step is asked: as what, and for how long it may stay silent."""

from __future__ import annotations

from gateway.execution.deadline import Deadline
from gateway.execution.fold import as_stream, folds
from gateway.execution.patience import first_token_s
from gateway.execution.pulse import Pulses
from gateway.model.config_version import Resilience
from gateway.model.decision import Step
from providers.chat import ChatRequest

Form = tuple[ChatRequest, float, float | None, bool]
"""The request, the seconds until its answer begins, and until its head where that differs; whether it is asked for one
JSON because it is known to be quick, so that no answer in that time is silence."""


def form_of(
    request: ChatRequest,
    step: Step,
    bounds: Resilience,
    deadline: Deadline,
    pulses: Pulses,
    left_s: float,
    now: float,
    is_last_step: bool,
) -> Form:
    """The form in which this step is asked for the request, of whose time `left_s` is left at this moment."""
    deployment = step.deployment
    if not request.stream:
        if not folds(request, deployment, is_last_step=is_last_step):
            return request, left_s, None, False
        if deployment.fold is None:
            patience_s = first_token_s(deployment, request, bounds)
            if pulses.is_quick(deployment, patience_s, now):
                return request, min(left_s, patience_s), None, True
        request = as_stream(request)
    patience_s = first_token_s(deployment, request, bounds)
    if is_last_step:
        # One JSON that broke off may have used up the time to its beginning; no byte of it was shown.
        commit_s = max(deadline.left_s(committed=False), patience_s) if request.folded else left_s
        return request, min(left_s, commit_s), None, False
    # Who doesn't even send a head isn't thinking. (A server of one's own, with a time of its own, may well queue.)
    is_thinking = patience_s > bounds.first_token_s and deployment.first_token_s is None
    return request, min(left_s, patience_s), bounds.first_token_s if is_thinking else None, False


def had_time(form: Form, step: Step, bounds: Resilience, *, is_last_step: bool) -> bool:
    """Whether a provider that stayed silent had the time that the config gives it. A client may ask for less."""
    request, limit_s, _, is_quick = form
    if not request.stream and not is_quick:
        return limit_s >= bounds.total_s / 2
    wanted_s = first_token_s(step.deployment, request, bounds)
    return limit_s >= (min(wanted_s, bounds.first_token_s) if is_last_step else wanted_s)
