"""No byte of a request gets to a deployment after the barrier without its cause and, where needed, the user's consent."""

import json
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.barriers import GRANTED, KEY, NEVER, PICTURE, TOO_LONG, Providers, barrier, failing, served_by
from tests.kit.example_counts import examples
from tests.kit.judged_chats import ask

SECRET = "the secret of the user"
ANSWERS: dict[str, httpx.Response | None] = {
    "answered": None,
    "unavailable": failing(500),
    "rate_limited": failing(429),
    "malformed": httpx.Response(200, text="<html>"),
    "context_length": failing(400, TOO_LONG),
    "credentials": failing(401),
    "model_not_found": failing(404, {"error": {"message": "no such model", "code": "model_not_found"}}),
    "quota": failing(429, {"error": {"message": "x", "code": "insufficient_quota"}}),
    "invalid_request": failing(400),
    "content_filter": failing(400, {"error": {"message": "x", "code": "content_filter"}}),
}
ENDING = ("answered", "invalid_request", "content_filter")
"""After these no other step is tried."""
SETTINGS: dict[str, dict[str, Any]] = {
    "used": {},
    "disabled": {"enabled": False},
    "credential": {"api_key": "${NOT_SET}"},
    "consent": {"consent": {"mode": "per_request", "on_missing": "skip", "recipient": "House"}},
}
BODIES: dict[str, dict[str, Any]] = {
    "text": {},
    "image": PICTURE,
    "tools": {"tools": [{"type": "function", "function": {"name": "find", "description": SECRET}}]},
    "object": {"response_format": {"type": "json_object"}},
    "loop": {
        "messages": [
            {"role": "user", "content": SECRET},
            {"role": "assistant", "content": "Yes"},
            {"role": "system", "content": SECRET},
        ]
    },
}
LACKING = {"house": {"image", "object"}, "small": {"image", "object", "tools"}}
"""The requests that a private deployment can't answer."""
CAUSES = {"capability": "capability", "context_length": "context"} | dict.fromkeys(
    ("unavailable", "rate_limited", "malformed"), "failure"
)


def outcomes_of(private: dict[str, tuple[str, str]], body: str) -> list[str]:
    """Return what becomes of each private step."""
    outcomes, is_over = [], False
    for name, (setting, answer) in private.items():
        if setting in ("disabled", "credential"):
            outcomes.append(setting)
        elif body in LACKING[name]:
            outcomes.append("capability")
        elif setting != "used":
            outcomes.append(setting)
        elif is_over:
            outcomes.append("untried")
        else:
            outcomes.append(answer)
            is_over = answer in ENDING
    return outcomes


def cause_of(outcomes: list[str], when: frozenset[str]) -> str | None:
    causes = [CAUSES.get(outcome) for outcome in outcomes]
    if not {*causes} <= when:
        return None
    return next((cause for cause in ("failure", "context", "capability") if cause in causes), None)


@settings(max_examples=examples(200), deadline=None)
@given(
    private=st.dictionaries(
        st.sampled_from(["house", "small"]),
        st.tuples(st.sampled_from(["used", *SETTINGS]), st.sampled_from([*ANSWERS])),
        min_size=1,
    ),
    when=st.frozensets(st.sampled_from(["capability", "context", "failure"]), min_size=1),
    share=st.sampled_from(["conversation", "last_turn"]),
    consent=st.sampled_from(["none", "per_request", "standing"]),
    headers=st.sampled_from([KEY, NEVER, GRANTED]),
    body=st.sampled_from([*BODIES]),
    stream=st.booleans(),
)
def test_only_a_cause_and_a_consent_open_the_barrier(
    private: dict[str, tuple[str, str]],
    when: frozenset[str],
    share: str,
    consent: str,
    headers: dict[str, str],
    body: str,
    stream: bool,
) -> None:
    rule = None if consent == "none" else {"mode": consent, "recipient": "Cloud"}
    deployments = {name: SETTINGS[setting] for name, (setting, _) in private.items()} | {"cloud": {"consent": rule}}
    providers = Providers({name: given for name, (_, answer) in private.items() if (given := ANSWERS[answer])})
    served = served_by(providers, {"deployments": deployments}, barrier(*when, share=share, before=(*private,)))
    history = [{"role": "user", "content": SECRET}, {"role": "assistant", "content": "Yes"}]
    messages = [*history, {"role": "user", "content": "Hello."}]
    sent = {"messages": messages, "user": SECRET, **BODIES[body]}
    response = ask(served, "chat", stream=stream, headers=headers, **sent)

    cause = cause_of(outcomes_of(private, body), when)
    is_kept = headers is NEVER or (share == "last_turn" and body in ("object", "loop"))
    opened = None if is_kept else cause
    is_agreed = consent == "none" or (consent == "standing" and headers is GRANTED)
    reached = [arrived for name, arrived in providers.asked if name == "cloud"]
    assert response.headers.get("x-gateway-hand-off") == opened
    assert (len(reached) > 0) == (opened is not None and is_agreed)
    # A private deployment that needs consent may ask for it, too.
    assert response.status_code == 403 or opened is None or is_agreed
    if share == "last_turn":
        assert SECRET not in json.dumps(reached)
