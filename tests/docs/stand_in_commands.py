"""Replacements for the commands in the shell blocks of the documentation, safe for a test.

Nothing serves for ever, installs into the development environment, or needs a Docker daemon. Called as
`python stand_in_commands.py COMMAND ARGUMENT...`.

gateway     the real one; `serve` and `demo` use a free port and are stopped by SIGTERM once they listen, unless the
            page needs them to continue
make        `make -n` in the checkout: the target exists and its recipe can be read
pip         `install .` installs into the page's own directory; others must be the packages of an extra of this project
pytest      only collects
promtool    `check config`: the file and its rule files have the sections that Prometheus requires
docker      runs the image's command with the mounted files and the variables, on this machine
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import requires
from itertools import pairwise
from pathlib import Path

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
GATEWAY = Path(os.environ.get("STAND_INS_GATEWAY", BIN / "gateway"))
LISTENS = re.compile(r'"event":"listening"|Ctrl-C')


def gateway(arguments: list[str], environ: dict[str, str] | None = None) -> int:
    if arguments[:1] not in (["serve"], ["demo"]):
        return subprocess.call([GATEWAY, *arguments])
    if "STAND_INS_SERVE_ON" in os.environ:
        os.execv(GATEWAY, ["gateway", *_with_free_port(arguments)])  # noqa: S606
    process = subprocess.Popen(
        [GATEWAY, *_with_free_port(arguments)],
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(line)
        if LISTENS.search(line):
            process.send_signal(signal.SIGTERM)
    return process.wait()


def _with_free_port(arguments: list[str]) -> list[str]:
    kept = list(arguments)
    if "--port" in kept:
        position = kept.index("--port")
        del kept[position : position + 2]
    return [*kept, "--port", "0"]


def make(arguments: list[str]) -> int:
    path = os.environ["PATH"].partition(":")[2]  # without the replacement commands
    environ = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    return subprocess.call(["make", "-n", "-C", str(ROOT), *arguments], env={**environ, "PATH": path})


def pip(arguments: list[str]) -> int:
    match arguments:
        case ["install", "."]:
            flags = ["--no-deps", "--no-build-isolation", "--no-index", "-q", "--target", "site"]
            return subprocess.call([sys.executable, "-m", "pip", "install", *flags, "."])
        case ["install", *names]:
            needed: dict[str, set[str]] = {}
            for line in requires("assistant-gateway") or []:
                if found := re.fullmatch(r"([\w-]+)[^;]*; extra == '(\w+)'", line):
                    needed.setdefault(found[2], set()).add(found[1])
            return 0 if set(names) in needed.values() else 1
    return 2


def pytest(arguments: list[str]) -> int:
    return subprocess.call([sys.executable, "-m", "pytest", "--collect-only", "-qq", *arguments])


def promtool(arguments: list[str]) -> int:
    import yaml

    assert arguments[:2] == ["check", "config"], arguments
    config = yaml.safe_load(Path(arguments[-1]).read_text())
    assert all(job["job_name"] and job["static_configs"] for job in config["scrape_configs"])
    for name in config["rule_files"] if "--syntax-only" not in arguments else ():
        for group in yaml.safe_load(Path(name).read_text())["groups"]:
            assert group["name"]
            assert all({"alert", "expr"} <= rule.keys() for rule in group["rules"])
    return 0


def docker(arguments: list[str]) -> int:
    if arguments[0] == "build":
        return 0 if arguments[1:] == ["-t", "assistant-gateway", "."] and Path("Dockerfile").exists() else 1
    image = arguments.index("assistant-gateway")
    options, command = arguments[1:image], arguments[image + 1 :]
    if not command:
        starts = [
            line.removeprefix("CMD ") for line in Path("Dockerfile").read_text().splitlines() if line[:4] == "CMD "
        ]
        command = json.loads(starts[-1])
    environ: dict[str, str] = {}
    for option, value in pairwise(options):
        if option == "-v":
            here, there, _ = value.split(":")
            command = [
                here + word.removeprefix(there) if f"{word}/".startswith(f"{there}/") else word for word in command
            ]
        elif option == "--env-file":
            lines = [line for line in Path(value).read_text().splitlines() if "=" in line and not line.startswith("#")]
            environ |= dict(line.split("=", 1) for line in lines)
    assert command[0] == "gateway", command
    return gateway(command[1:], environ)


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    commands = {"gateway": gateway, "make": make, "pip": pip, "pytest": pytest, "promtool": promtool, "docker": docker}
    raise SystemExit(commands[name](rest))
