"""The delay that moderation adds to a stream, by the time of a verdict, the language and `window_chars`.

    python -m bench.judged

A model writes 60 tokens a second on a loop with virtual time, so the figures are exact and the same on every machine.
The time of the gateway itself is not included.
"""

from __future__ import annotations

import statistics
from itertools import pairwise

from tests.kit.judged_streams import judged_table, run_judged, verdict
from tests.kit.virtual_time import Act

__all__ = ["WINDOWS", "delays", "table"]

_TOKEN_S = 1 / 60
_ENGLISH = (
    "The old town lies on a hill above the river, and most visitors walk up from the station. The way takes twenty "
    "minutes, and there is a bus for those who do not like stairs. Begin at the market, where farmers sell cheese and "
    "fruit in the morning. Then see the cathedral, whose tower is open until five. In the evening, the small streets "
    "around the town hall have good restaurants, and none of them is expensive. If you stay another day, take a boat. "
)
_CHINESE = (
    "老城在河边的山上，多数游客从车站步行上去。这段路大约要走二十分钟，不喜欢爬楼梯的人可以坐公交车。先去市场看看，早上农民在那里卖奶酪和水果。"
    "然后参观大教堂，它的塔楼开放到下午五点。晚上，市政厅后面的小街上有不错的餐馆，而且都不贵。如果您多住一天，可以坐船游览。"
)
_LANGUAGES = {"English": (_ENGLISH, 4), "Chinese": (_CHINESE, 2)}
"""A text in each language, and about how many characters a token has."""
WINDOWS = (40, 80, 160)


def delays(language: str, verdict_s: float, window: int) -> tuple[float, float, float, float]:
    """Return the delay of the first text, the median and the longest time between two texts, and how many are judged.

    Times are in seconds, and the number is for 1,000 characters.
    """
    text, size = _LANGUAGES[language]
    text *= 3
    pieces = tuple(text[start : start + size] for start in range(0, len(text), size))
    policy = {"window_chars": window, "hold_chars": 5 * window}
    table = judged_table({"regions": {"default": {"moderation": policy}}})
    act = Act(texts=pieces, piece_s=_TOKEN_S, writes_on=True)
    run, client = run_judged(table, {"a": [act]}, lambda _, texts: verdict(texts, verdict_s))
    if client.text != text:
        raise RuntimeError("the answer is not complete")
    times = [at for at, body in client.arrivals if b'"content":"' in body and b'"content":""' not in body]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    first_s = times[0] - run.began_at - _TOKEN_S
    return first_s, statistics.median(gaps), max(gaps), len(run.judged) / len(text) * 1000


def table() -> str:
    """Return the delays as a table in Markdown."""
    head = "| text | `window_chars` | first text | judge of 300 ms | between texts | longest | verdicts per 1,000 |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for language in _LANGUAGES:
        for window in WINDOWS:
            first_s, *gaps, number = delays(language, 0.05, window)
            times = (first_s, delays(language, 0.3, window)[0], *gaps)
            figures = " | ".join(f"{time_s:.1f} s" for time_s in times)
            lines.append(f"| {language} | {window} | {figures} | {number:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
