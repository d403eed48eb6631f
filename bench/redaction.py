"""The cost of redaction in microseconds of CPU for a KB of text, and of restoring for an event of a stream.

    python -m bench.redaction [--json]

Each figure is the best of fifteen. The bounds are those of one core that does nothing else, so a busy machine passes
them; the exit status does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from random import Random

from gateway.features.redaction.model import DEFAULT_KINDS, rules_of
from gateway.features.redaction.policy.finding import Clock, Finder
from gateway.features.redaction.policy.forms import countries
from gateway.features.redaction.policy.placeholders import Placeholders, Restorer

_TIMES = 15
_BYTES = 8192
_RULES = rules_of(["bench"], {*DEFAULT_KINDS, "id"}, countries())
_EVENTS = ["call", " me ", "at Q", "PHON", "E1Z,", " not", " at ", "home"] * 100


def texts() -> Mapping[str, tuple[str, float]]:
    """Return texts by name, with their bounds in microseconds a KB."""
    draw = Random(1)  # noqa: S311  # the same texts each time
    filler = "and it came at last, and was then sent on to the next shop of all, "
    numbers = " ".join(f"order {draw.randrange(10**7, 10**11)} {filler}" for _ in range(200))
    values = " ".join(
        f"call +49 171 {draw.randrange(10**6, 10**7)} or write to us{draw.randrange(99)}@example.com. "
        for _ in range(200)
    )
    prose = {
        "prose": "The team keeps its handbook and its rules in front of every question of a day. ",
        "German prose": "Die Gruppe hält ihr Handbuch über alle Regeln bei jeder Frage bereit, die jemand stellt. ",
        "Chinese prose": "今天天气很好，我们去公园散步，然后回家吃饭，晚上看电影。",
    }
    worst = {"digits one by one": "1 ", "brackets": "(0", "cards": "4111 1111 1111 1111 ", "escapes": "\\n"}
    worst |= {"beginnings of keys": "-----BEGIN PRIVATE KEY-----", "names in addresses": "://a:"}
    return {
        **{name: (text * 200, 20.0) for name, text in prose.items()},
        "ten numbers a KB": (numbers, 150.0),
        "values": (values, 1000.0),
        **{name: (text * 5000, 1000.0) for name, text in worst.items()},
    }


def measure() -> dict[str, tuple[float, float]]:
    """Return each figure with its bound, in microseconds."""
    figures: dict[str, tuple[float, float]] = {}
    for name, (text, bound) in texts().items():
        cut = text.encode()[:_BYTES].decode("utf-8", "ignore")
        size_kb = len(cut.encode()) / 1024
        # A new finder has seen no text.
        found = [_microseconds(lambda finder: finder.find(cut, Clock()), Finder(_RULES)) for _ in range(_TIMES)]  # noqa: B023
        figures[f"{name}, a KB"] = min(found) / size_kb, bound
    known = Finder(_RULES)
    history = ("The team keeps its handbook and its rules in front of every question. " * 200)[:_BYTES]
    known.find(history)
    seen = min(_microseconds(lambda finder: finder.find(history), known) for _ in range(_TIMES))
    figures["a history that was seen before, a KB"] = seen / (len(history) / 1024), 5.0
    named = Placeholders(_RULES)
    named("+49 171 1234567")
    restored = min(_microseconds(lambda finder: _restore(named), known) for _ in range(_TIMES))
    figures["restoring, an event"] = restored / len(_EVENTS), 2.0
    return figures


def _restore(named: Placeholders) -> None:
    restorer = Restorer(named)
    for event in _EVENTS:
        restorer.feed(event)


def _microseconds(work: Callable[[Finder], object], finder: Finder) -> float:
    began = time.process_time_ns()
    work(finder)
    return (time.process_time_ns() - began) / 1000


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.redaction", description="The cost of redaction.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    figures = measure()
    if parser.parse_args().json:
        print(json.dumps({name: round(figure, 2) for name, (figure, _) in figures.items()}))
        return 0
    for name, (figure, bound) in figures.items():
        print(f"{name:40} {figure:9.1f} µs   bound {bound:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
