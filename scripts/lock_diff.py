"""Show what a change of the locks brings: `make lock-diff` compares with the last commit, `FROM=main` with another.

For each package that is new or has another version, its wheel is fetched by the hashes of the lock, for this platform:
size, native code, entry points, scripts, `.pth` files, and what an import does at the start (sockets, look-ups of
names, processes), in a namespace without a network where the kernel allows one. The exit status is 1 for a `.pth` and
for a package without a wheel, because both run code that no one called.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
_PIN = re.compile(r"(?m)^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)[^\n]*(?:\n    --hash=\S+.*)+")
_NATIVE = (".so", ".pyd", ".dylib")
_APART = ["unshare", "--user", "--map-root-user", "--net"]
_IMPORT = """
import sys, importlib
seen = []
def note(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")):
        seen.append(event)
sys.addaudithook(note)
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"import {name}: {type(error).__name__}: {error}")
print(*(f"at import: {event}" for event in dict.fromkeys(seen)), sep="\\n")
"""


def main() -> int:
    """Print the difference of every lock. Return the exit status."""
    before = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
    refused = False
    for name, old, new in changed_pins(before, ROOT):
        print(f"{name} {old[0] if old else '(new)'} -> {new[0] if new else '(gone)'}")
        if new is None:
            continue
        facts = _facts_of(name, new[1])
        known = _facts_of(name, old[1]) if old else set()
        for fact in sorted(facts):
            print(f"  {' ' if fact in known else '+'} {fact}")
        refused = refused or any(fact.startswith(("no wheel", "runs at each start")) for fact in facts)
    if refused:
        print("refused: a `.pth` or a package without a wheel runs code at the start or at the installation")
    return int(refused)


Pin = tuple[str, str]
"""A version, and its lines in the lock."""


def pins_of(text: str) -> dict[str, Pin]:
    """Return the packages of a lock."""
    return {found[1]: (found[2], found[0]) for found in _PIN.finditer(text)}


def changed_pins(before: str, root: Path) -> Iterator[tuple[str, Pin | None, Pin | None]]:
    """Return each package whose version differs in a lock, one time, with the former and the new pin."""
    seen: set[tuple[str | None, ...]] = set()
    for lock in sorted((root / "locks").glob("*.lock")):
        command = ["git", "show", f"{before}:locks/{lock.name}"]
        shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603 -- git
        old, new = pins_of(shown.stdout), pins_of(lock.read_text("utf-8"))
        for name in sorted({*old, *new}):
            pair = old.get(name), new.get(name)
            key = (name, *(pin and pin[0] for pin in pair))
            if pair[0] is None or pair[1] is None or pair[0][0] != pair[1][0]:
                if key not in seen:
                    yield name, *pair
                seen.add(key)


def _facts_of(name: str, pin: str) -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder, "asked.txt")
        asked.write_text(re.sub(r"\s*;[^\\\n]*", " ", pin) + "\n", "utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(  # noqa: S603 -- pip
            [*command, "--require-hashes", "-r", str(asked), "--dest", folder], capture_output=True, text=True
        )
        (*wheels,) = Path(folder).glob("*.whl")
        if not wheels:
            return {f"no wheel for this platform: {(done.stderr.strip() or 'unknown').splitlines()[-1]}"}
        return set(_facts_of_wheel(wheels[0]))


def _facts_of_wheel(path: Path) -> Iterator[str]:
    with ZipFile(path) as wheel, tempfile.TemporaryDirectory() as folder:
        names = wheel.namelist()
        yield f"size: {path.stat().st_size / 1e6:.1f} MB in {len(names)} files"
        yield from (f"native code: {name}" for name in names if name.endswith(_NATIVE))
        yield from (f"script: {name}" for name in names if ".data/scripts/" in name)
        yield from (f"runs at each start: {name}" for name in names if name.endswith(".pth"))
        for name in (it for it in names if it.endswith(".dist-info/entry_points.txt")):
            yield from (f"entry point: {line}" for line in wheel.read(name).decode().splitlines() if "=" in line)
        wheel.extractall(folder)
        tops = {
            name.split("/")[0].removesuffix(".py") for name in names if re.match(r"[A-Za-z_]\w*(/__init__)?\.py$", name)
        }
        command = [sys.executable, "-c", _IMPORT, folder, *sorted(tops)]
        apart = _APART if subprocess.run([*_APART, "true"], capture_output=True).returncode == 0 else []  # noqa: S603
        done = subprocess.run([*apart, *command], capture_output=True, text=True, timeout=120)  # noqa: S603
        yield from filter(None, done.stdout.splitlines())


if __name__ == "__main__":
    raise SystemExit(main())
