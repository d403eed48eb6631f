"""Generate the page of faults from the table that the fault tests compare a running gateway with."""

from __future__ import annotations

from tests.kit.fault_table import FAULTS, INTERRUPTED, WHOLE, Fault, Seen

_HEAD = """\
# Provider faults

Each row is a fault of a provider. A test causes it on real sockets, with a running gateway, once with a fallback
after the deployment and once without, for JSON and for a stream, and compares the result with this table. The table
is generated from that test.

- **calls**: how often the failing deployment is called before the next step, with `attempts: {per_deployment: 2}`.
- **with a fallback**: which deployment answers if the next step of the route is healthy.
- **without**: what the client gets if there is no next step. Every error after an attempt has `x-should-retry:
  false`, and a 429 or 503 has `retry-after`.
- **log**: the `kind` of the attempt in the request's log line, and the `outcome` of `gateway_attempts_total`.

Try the faults without a key: `gateway simulate --fault-at chatgpt-eu 503 --fault reset:0.1` starts the demo with
failing providers and prints its log. `gateway simulate --help` lists the faults.

*cut* is a stream that ends with an error event, `stream_interrupted`, and without `[DONE]`.

If text arrives in one piece with the error after it, the gateway discards the text. No client has received it, so the
failure is an ordinary one, and the next step can answer. The division into chunks and lines makes no difference (a
piece has at most 64 KB). If the error arrives a moment
later, the text has already been sent to the client. The result depends on the provider and the network. This cannot
be avoided: to exclude a later error, every first piece of text would have to wait for the next one.

| what the provider does | calls | with a fallback | without, JSON | without, stream | log |
|---|---|---|---|---|---|
"""


def faults_page() -> str:
    """Return the page in Markdown."""
    return _HEAD + "".join(f"{_row(fault)}\n" for fault in FAULTS)


def _row(fault: Fault) -> str:
    json, stream = fault.alone
    kind = f"`{fault.kind}`" if fault.kind is not None else "no failure"
    with_fallback = (
        "the primary" if fault.kind is None else "the fallback" if fault.moves_on else "none: same as without"
    )
    if fault.kind is None and fault.calls > 1:
        kind, with_fallback = "of the first attempt", "the primary, called again"
    cells = (
        fault.description,
        str(fault.calls) if fault.behave is not None else "2, without success",
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
