"""The page of faults, from the table that the fault tests compare a running gateway with."""

from __future__ import annotations

from tests.kit.fault_table import FAULTS, INTERRUPTED, WHOLE, Fault, Seen

_HEAD = """\
# What happens when a provider fails

Each row is a fault that a provider can have. A test makes it happen on real sockets, in front of a running gateway,
once with a fallback behind the deployment and once without, for JSON and for a stream, and holds the gateway to what is
written here. The table itself is written from that test.

- **asked**: how often the failing deployment is asked before the next step is, with `attempts: {per_deployment: 2}`.
- **with a fallback**: who answers if the route has a next step that is well.
- **alone**: what the client gets if it has none. Every error after an attempt carries `x-should-retry: false`, and a
  429 or 503 carries `retry-after`.
- **log**: the `kind` of the attempt in the request's log line, and the `outcome` of `gateway_attempts_total`.

See it for yourself, without a key: `gateway simulate --fault-at chatgpt-eu 503 --fault reset:0.1` is the demo with
providers that fail as you say, and its log. `gateway simulate --help` has the words.

*cut* is a stream that ends with an error event, `stream_interrupted`, and without `[DONE]`.

Words that arrive in one piece with the error behind them are forgotten: nobody has seen them, so that the failure is an
ordinary one, and the next step can answer. How the piece is cut into chunks and lines makes no difference
(a piece is 64 KB at most; with `GATEWAY_TRANSPORT=httpx` each chunk is one of its own). If the error arrives a moment
later, the words are on their way to the client. Which of the two it is depends on the provider and the network, and
can't be otherwise: to know that no error follows, each first word would have to wait for the next.

The `log` of the table is our own pool's. httpx has fewer words: with `GATEWAY_TRANSPORT=httpx`, what is no valid HTTP
is `connect` there until the head is whole, and `interrupted` behind it; a head that breaks off is `connect`. All of
them are asked again, failed over and counted alike.

| what the provider does | asked | with a fallback | alone, JSON | alone, stream | log |
|---|---|---|---|---|---|
"""


def faults_page() -> str:
    """Return the page in Markdown."""
    return _HEAD + "".join(f"{_row(fault)}\n" for fault in FAULTS)


def _row(fault: Fault) -> str:
    json, stream = fault.alone
    kind = f"`{fault.kind}`" if fault.kind is not None else "no failure"
    with_fallback = "the primary" if fault.kind is None else "the fallback" if fault.moves_on else "nobody: as alone"
    if fault.kind is None and fault.calls > 1:
        kind, with_fallback = "the first attempt's", "the primary, asked again"
    cells = (
        fault.says,
        str(fault.calls) if fault.behave is not None else "2, in vain",
        with_fallback,
        _seen(json) if fault.json else "–",
        _seen(stream) if fault.streams else "–",
        kind,
    )
    return f"| {' | '.join(cells)} |"


def _seen(seen: Seen) -> str:
    if seen == WHOLE:
        return "the answer"
    if seen == INTERRUPTED:
        return "*cut*"
    return f"{seen[0]} `{seen[1]}`"
