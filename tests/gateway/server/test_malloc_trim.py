"""Freed memory of large bodies is returned to the system, not kept for later bodies."""

import platform
import subprocess
import sys

import pytest

from gateway.server.free_memory import release_large_blocks

of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have their own ways")

_FLOOD = """
from gateway.server.free_memory import release_large_blocks
assert release_large_blocks({})

def held_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 2**20

bytes(30_000_000)  # the first to be freed, from which glibc learns
before, large, small = held_mb(), [], []
for _ in range(8):
    large.append(b"x" * 20_000_000)
    small.append(b"x" * 100_000)
del large
print(held_mb() - before)
"""

_LOAD = """
from resource import RUSAGE_SELF, getrusage
from gateway.server.free_memory import release_large_blocks
assert release_large_blocks({})

def answer():
    bodies = [b"x" * 100_000 for _ in range(64)]

answer()
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(100):
    answer()
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""
_HOLES = """
from gateway.server.free_memory import HeapTrimmer, release_large_blocks, resident_bytes
assert release_large_blocks({})
now = [0]
trimmer = HeapTrimmer({}, lambda: now[0])

def look_at(second):
    now[0], before = second, resident_bytes()
    trimmer.look()
    return (before - resident_bytes()) // 2**20

pieces = [b"x" * (100_000 + number) for number in range(400)]
assert look_at(5) <= 0, "it trims while the process grows"
assert look_at(6) <= 0, "everything is in use"
kept = pieces[::8]
del pieces  # no figure shows it
assert look_at(9) <= 0, "it trims all the time"
print(look_at(11))
"""
_WITHOUT_LIBFFI = """
import sys
sys.modules["_ctypes"] = None
from gateway.server.uvicorn_server import settle
settle()
"""


@of_glibc
def test_large_freed_memory_is_returned_to_the_system() -> None:
    result = subprocess.run([sys.executable, "-c", _FLOOD], capture_output=True, text=True, check=True, timeout=60)
    assert int(result.stdout) < 20


@of_glibc
def test_free_pages_between_used_ones_are_returned() -> None:
    result = subprocess.run([sys.executable, "-c", _HOLES], capture_output=True, text=True, check=True, timeout=60)
    assert int(result.stdout) > 20


@of_glibc
def test_memory_of_usual_bodies_is_reused() -> None:
    result = subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=True, timeout=60)
    assert int(result.stdout) < 1000, "pages were given back, and taken again"


def test_python_without_libffi_works_without_memory_trimming() -> None:
    subprocess.run([sys.executable, "-c", _WITHOUT_LIBFFI], capture_output=True, check=True, timeout=60)


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_operators_settings_stay(name: str) -> None:
    assert not release_large_blocks({name: "1"})
