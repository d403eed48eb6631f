"""Write the conformance report: `make report` runs what judges the gateway, and writes one page and one JSON.

`report.toml` lists the steps. The report has versions, commands, counts and failures, and is part of a release: only of
one with the same `gateway/` and `providers/` (`code_of`).
`ARGS=--small` takes the small form of each step, `ARGS="--only fence"` runs one and keeps the others as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gateway.release import release_name

ROOT = Path(__file__).parents[1]
PAGE, DATA = ROOT / "docs/prove/report.md", ROOT / "docs/prove/report.json"
_HEAD = """\
# Conformance report

`make report` runs what judges this gateway, and writes this page and `report.json`. Both are part of a
[release](../operate/get.md). Each row has what ran, on which release and day, and in which form; *small* is the form
of `make ci`.

| what | release, day | form | passed | failed | skipped |
|---|---|---|---:|---:|---:|
"""
_MOST_LINES = 40


def main() -> int:
    """Run the steps that the command line names, and write the report. Return 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="make report")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    steps = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["step"]
    before = json.loads(DATA.read_text("utf-8"))["steps"] if DATA.exists() else []
    done = {step["name"]: step for step in before}
    for step in steps:
        if options.only in ("", step["name"]):
            print(f"{step['name']} ...", flush=True)
            done[step["name"]] = run_step(step, is_small=options.small)
            report = {"object": "report", "steps": [done[it["name"]] for it in steps if it["name"] in done]}
            DATA.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
            PAGE.write_text(page_of(report), "utf-8")
    return int(any(done[step["name"]]["failed"] for step in steps if step["name"] in done))


def run_step(step: Mapping[str, Any], *, is_small: bool) -> dict[str, Any]:
    """Run a step, and return what the report states of it."""
    words = shlex.split(step.get("small" if is_small else "full", ""))
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "counts.xml")
        if "pytest" in step:
            command = ["pytest", *step["pytest"].split(), *words]
            done = _run(["-m", *command, "-q", f"--junitxml={record}"])
        else:
            command = [*step["command"].split(), *words]
            done = _run(["-m", *command])
        counted = counts_of(record) if record.exists() else counts_of_output(done, step.get("counts"))
    return {
        "name": step["name"],
        "what": step["what"],
        "command": shlex.join(["python", "-m", *command]),
        "form": "small" if is_small else "full",
        "release": release_name(),
        "code": code_of(ROOT),
        "day": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version_of(name) for name in step.get("package", "").split()},
        **counted,
        "said": [] if "pytest" in step else done.stdout.rstrip().splitlines()[-_MOST_LINES:],
    }


def code_of(root: Path) -> str:
    """Return a hash of the files of `gateway/` and `providers/` in a checkout, without the one with the version."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "gateway", "providers"],  # noqa: S607
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout
    content = hashlib.sha256()
    for name in sorted(filter(None, listed.split(b"\0"))):
        if name != b"gateway/__init__.py" and (path := root / name.decode()).is_file():
            content.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()


def is_of(data: Path, root: Path) -> bool:
    """Return whether each step of a report ran with the code of a checkout."""
    code = code_of(root)
    return all(step.get("code") == code for step in json.loads(data.read_text("utf-8"))["steps"])


def counts_of(record: Path) -> dict[str, Any]:
    """Return the counts of a run of pytest, and the name and first line of each failure."""
    cases = list(ElementTree.parse(record).iter("testcase"))  # noqa: S314 -- pytest has written it
    failures = []
    for case in cases:
        for problem in (*case.iter("failure"), *case.iter("error")):
            message = (problem.get("message") or "").splitlines()
            failures.append(f"{case.get('classname')}::{case.get('name')}: {message[0] if message else ''}"[:300])
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - skipped - len(failures),
        "failed": len(failures),
        "skipped": skipped,
        "failures": failures,
    }


def page_of(report: Mapping[str, Any]) -> str:
    """Return the page of a report."""
    text = _HEAD
    for step in report["steps"]:
        judges = "".join(f", {name} {number}" for name, number in step["packages"].items() if number)
        when = f"{step['release']}, {step['day']}"
        text += f"| **{step['name']}**{judges}: {step['what']} | {when} | {step['form']} "
        text += f"| {step['passed']:,} | {step['failed']:,} | {step['skipped']:,} |\n"
    for step in report["steps"]:
        text += f"\n## {step['name'][0].upper()}{step['name'][1:]}\n\n`{step['command']}`\n"
        text += f"\nPython {step['python']}, {step['machine']}.\n"
        text += "".join(f"\n- FAILED {failure}" for failure in step["failures"]) + ("\n" if step["failures"] else "")
        if step["said"]:
            text += "\n" + "".join(f"    {line}\n" for line in step["said"])
    return text


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- the commands of report.toml
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def counts_of_output(done: subprocess.CompletedProcess[str], pattern: str | None) -> dict[str, Any]:
    """Return the counts of another program: of its output or, without a pattern, of its exit status."""
    found = re.findall(pattern, done.stdout) if pattern is not None else []
    good, number = map(int, found[-1]) if found else (int(done.returncode == 0), 1)
    failures = [f"{number - good} of {number}" if found else f"exit status {done.returncode}"] if good < number else []
    return {"passed": good, "failed": number - good, "skipped": 0, "failures": failures}


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    raise SystemExit(main())
