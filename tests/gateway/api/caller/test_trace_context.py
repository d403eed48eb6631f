"""`traceparent` and `tracestate`: taken if they are sound, passed over otherwise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.caller.request_headers import begin_trace, headers_of, trace_of
from gateway.model.caller import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SOUND = f"00-{TRACE}-{SPAN}-01"


def read(*parents: str, states: tuple[str, ...] = ()) -> TraceContext | None:
    headers = [(b"traceparent", parent.encode("latin-1")) for parent in parents]
    headers += [(b"tracestate", state.encode("latin-1")) for state in states]
    return trace_of(headers_of({"headers": headers}))


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (SOUND, True),
        (f"{SOUND} \t", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-fe", False),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-has", True),
    ],
)
def test_valid_traceparent_is_used(header: str, sampled: bool) -> None:
    assert read(header) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        SOUND.upper(),
        SOUND + " -",
        SOUND + "\xa0",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE[:-1]}é-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_invalid_traceparent_is_ignored(header: str) -> None:
    assert read(header) is None


def test_two_traceparent_headers_are_ignored() -> None:
    assert read(SOUND, SOUND) is None
    assert read() is None


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        (("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",), "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (("a=1", "b=2"), "a=1,b=2"),
        ((" a=1 ,, b=2 ",), "a=1,b=2"),
        (("fw529a3039@dt=FfAxO;x:1",), "fw529a3039@dt=FfAxO;x:1"),
        (("a=" + "x" * 256,), "a=" + "x" * 256),
        (("a=" + "x" * 257,), ""),
        (("a=1,a=2",), ""),
        (("A=1",), ""),
        (("a=é",), ""),
        (("a",), ""),
        (("a=",), ""),
        ((",".join(f"k{i}=1" for i in range(32)),), ",".join(f"k{i}=1" for i in range(32))),
        ((",".join(f"k{i}=1" for i in range(33)),), ""),
        ((",".join(f"k{i}={'x' * 200}" for i in range(3)),), ""),
        (("a=" + "x" * 254, "b=" + "x" * 253), f"a={'x' * 254},b={'x' * 253}"),
        (("a=" + "x" * 254, "b=" + "x" * 254), ""),
    ],
)
def test_tracestate_is_kept_only_if_valid_and_short(states: tuple[str, ...], kept: str) -> None:
    trace = read(SOUND, states=states)
    assert (trace.trace_id, trace.state) == (TRACE, kept)


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=255), max_size=80), st.text(st.characters(max_codepoint=255), max_size=600))
def test_any_trace_headers_give_a_valid_trace_or_none(parent: str, state: str) -> None:
    for trace in (read(parent, states=(state,)), read(SOUND, states=(state,))):
        if trace is not None:
            assert len(bytes.fromhex(trace.trace_id)) == 16
            assert len(bytes.fromhex(trace.parent_id)) == 8
            assert len(trace.state) <= 512
            assert trace.state.isascii()


def test_new_trace_has_random_ids_and_no_parent() -> None:
    one, other = begin_trace(), begin_trace()
    assert one.trace_id != other.trace_id
    assert len(bytes.fromhex(one.trace_id)) == 16
    assert (one.parent_id, one.sampled, one.state) == ("", None, "")
