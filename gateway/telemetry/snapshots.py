"""A snapshot: all metrics of one process at one moment, as bytes that another process can add up.

Every number is a whole one (times are microseconds), so that adding up gives the same in whatever order it is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from gateway.telemetry.families import FAMILIES

__all__ = ["EMPTY", "Series", "merge", "pack", "unpack", "without_gauges"]

Series = dict[str, dict[tuple[str, ...], list[int]]]
"""By the family's name and the values of its labels: one number, or a histogram's buckets and its sum."""


def pack(series: Mapping[str, Mapping[tuple[str, ...], list[int]]]) -> bytes:
    """The bytes of a snapshot."""
    return orjson.dumps({name: [[labels, value] for labels, value in rows.items()] for name, rows in series.items()})


def unpack(snapshot: bytes) -> Series:
    """What was packed. Series of a family that isn't known here, or of another shape, are left out."""
    series: Series = {}
    for name, rows in orjson.loads(snapshot).items():
        family = FAMILIES.get(name)
        if family is not None:
            known = [row for row in rows if len(row[0]) == len(family.labels) and len(row[1]) == family.width]
            series[name] = {tuple(labels): value for labels, value in known}
    return series


def merge(snapshots: Iterable[bytes]) -> bytes:
    """The sum of several processes' snapshots; of none, an empty one."""
    total: Series = {}
    for snapshot in snapshots:
        for name, rows in unpack(snapshot).items():
            sums = total.setdefault(name, {})
            for labels, value in rows.items():
                held = sums.get(labels)
                sums[labels] = value if held is None else [mine + more for mine, more in zip(held, value, strict=True)]
    return pack(total)


def without_gauges(snapshot: bytes) -> bytes:
    """What stays of a process that has ended: what it counted, and nothing that it had open."""
    return pack({name: rows for name, rows in unpack(snapshot).items() if FAMILIES[name].kind != "gauge"})


EMPTY = merge(())
