"""The faults that the experiment inflicts on a cell. Each one has ended, and its part runs again, when it returns."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

from tests.chaos.cell_world import INSTANCES, STORES, CellWorld, cut, heal, slow_link, within
from tests.kit.waiting import eventually

__all__ = ["CUTTING", "FAULTS", "LOSING", "MISSED", "TARGETS", "stores_of"]

_STARTS_AFTER_S = 5.0


def kill(world: CellWorld, target: str, lasts_s: float) -> None:
    """Kill a part with `kill -9`, and start it again. A Valkey that was killed is empty."""
    if target in STORES:
        server = world.valkey if target == "valkey" else world.database
        server.kill()
        time.sleep(lasts_s)
        with within(target):
            server.restart()
        return
    world.instances[target].kill()
    time.sleep(min(lasts_s, _STARTS_AFTER_S))
    world.start(target)


def stop(world: CellWorld, target: str, lasts_s: float) -> None:
    """Stop a part with SIGSTOP, and let it go on."""
    if target in STORES:
        server = world.valkey if target == "valkey" else world.database
        server.freeze()
        time.sleep(lasts_s)
        server.thaw()
        return
    world.instances[target].send(signal.SIGSTOP)
    time.sleep(lasts_s)
    world.instances[target].send(signal.SIGCONT)


def kill_worker(world: CellWorld, target: str, _: float) -> None:
    """Kill one worker of an instance, which starts another one."""
    instance = world.instances[target].process
    assert instance is not None
    with suppress(psutil.Error, IndexError):
        psutil.Process(instance.pid).children()[0].kill()
    world.wait_until_ready(target)


def part(world: CellWorld, target: str, lasts_s: float) -> None:
    """Cut an instance off from a store or from both: what it sends, what the store sends, or both."""
    instance, _, way = target.split("-")
    to, back = [(instance, store) for store in stores_of(target)], [(store, instance) for store in stores_of(target)]
    chosen = {"to": to, "from": back, "both": [*to, *back]}[way]
    for link in chosen:
        cut(*link)
    time.sleep(lasts_s)
    for link in chosen:
        heal(*link)


def slow(world: CellWorld, target: str, lasts_s: float) -> None:
    """Make the way to a part and back longer by 200 ms, and lose 5 % of its packets."""
    with slow_link(target):
        time.sleep(lasts_s)


def empty(world: CellWorld, _target: str, _lasts_s: float) -> None:
    """Empty Valkey."""
    world.valkey.command("FLUSHALL")


def fill_disk(world: CellWorld, target: str, lasts_s: float) -> None:
    """Fill the disk with the state directory of an instance, also what it gives back meanwhile."""
    filler, ends_s = world.instances[target].state / "filler", time.monotonic() + lasts_s
    with open(filler, "wb", buffering=0) as file:
        while time.monotonic() < ends_s:
            with suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            time.sleep(0.1)
    filler.unlink()


def lock_disk(world: CellWorld, target: str, lasts_s: float) -> None:
    """Start an instance with a read-only state directory, as after an error of its disk, and with a writable one."""
    one = world.instances[target]
    for mode, waits_s in (("ro", lasts_s), ("rw", 0.0)):
        one.kill()
        one.remount(mode)
        one.start()
        time.sleep(waits_s)
    world.wait_until_ready(target)


def shift_clock(world: CellWorld, target: str, lasts_s: float) -> None:
    """Set the clock of an instance 10 s ahead, and back."""
    # In place: a process that reads the byte while its file is empty would get SIGBUS.
    with open(world.instances[target].file("clock"), "r+b", buffering=0) as clock:
        clock.write(b"\1")
        time.sleep(lasts_s)
        clock.seek(0)
        clock.write(b"\0")


def update(world: CellWorld, target: str, lasts_s: float) -> None:
    """Replace an instance by one of the last release, and back. With more time, all in turn."""
    names = INSTANCES if lasts_s > _STARTS_AFTER_S else (target,)
    for release, waits_s in ((world.old_product(), lasts_s), (world.product, 0.0)):
        for name in names:
            world.instances[name].end()
            world.instances[name].product = release
            world.start(name)
        time.sleep(waits_s)


def restore(world: CellWorld, _: str, lasts_s: float) -> None:
    """Replace the database by a backup of the begin, and empty Valkey as the page of stores asks."""
    world.database.tool("pg_basebackup --pgdata standby --checkpoint fast")
    time.sleep(lasts_s)
    world.database.kill()
    _use_standby(world)
    world.valkey.command("FLUSHALL")


def fail_over(world: CellWorld, _: str, lasts_s: float) -> None:
    """Go on with the hot standby of a database that is lost with its last transactions."""
    world.database.tool("pg_basebackup --pgdata standby --write-recovery-conf --checkpoint fast")
    with within("database"):
        standby = world.database.start_standby()
    eventually(lambda: world.database.sql("SELECT state FROM pg_stat_replication") == [("streaming",)])
    processes = [psutil.Process(standby.pid), *psutil.Process(standby.pid).children()]
    for process in processes:
        process.suspend()
    time.sleep(min(lasts_s, _STARTS_AFTER_S))
    world.database.kill()
    for process in processes:
        process.kill()
    standby.wait()
    (world.database.directory / "standby" / "standby.signal").unlink()
    _use_standby(world)


def _use_standby(world: CellWorld) -> None:
    data = world.database.directory / "data"
    shutil.rmtree(data)
    (world.database.directory / "standby").rename(data)
    with within("database"):
        world.database.restart()


def stores_of(target: str) -> tuple[str, ...]:
    """Return the stores that a target names."""
    return tuple(store for store in STORES if store in target or "stores" in target)


_PAIRS = tuple(f"{name}-{store}" for name in INSTANCES for store in STORES)
TARGETS = {
    "kill": (*INSTANCES, *STORES),
    "stop": (*INSTANCES, *STORES),
    "kill_worker": INSTANCES,
    "part": (
        *(f"{pair}-{way}" for pair in _PAIRS for way in ("to", "from", "both")),
        *(f"{name}-stores-both" for name in INSTANCES),
    ),
    "slow": (*INSTANCES, *STORES),
    "empty": ("valkey",),
    "fill_disk": INSTANCES,
    "lock_disk": INSTANCES,
    "shift_clock": INSTANCES,
    "update": INSTANCES,
    "restore": ("database",),
    "fail_over": ("database",),
}
FAULTS: Mapping[str, Callable[[CellWorld, str, float], None]] = {
    fault.__name__: fault
    for fault in (
        kill, stop, kill_worker, part, slow, empty, fill_disk, lock_disk, shift_clock, update, restore, fail_over,
    )
}  # fmt: skip
LOSING = {"restore", "fail_over"}
CUTTING = {"kill", "stop", "kill_worker", "part", "lock_disk", "update"}
MISSED = {"fill_disk": "journal", "slow": "valkey"}
"""The store that an instance misses in a fault that names none."""
