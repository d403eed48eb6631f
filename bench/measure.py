"""Measure the costs of one subject: scenario after scenario over real sockets, each the median of its rounds."""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import Cores, Tools
from bench.reloading import reload
from bench.subjects import Ours, Request, Running, Subject

__all__ = ["FULL", "QUICK", "Bench", "Extent", "Result"]

Say = Callable[[str], None]
_CONNECTIONS = 64
_PACED_STREAMS = 24
_LATENCY_RATE = 50
_RELOAD_RATE = 200
_RELOAD_WINDOW_S = 3.0
_HOLD_LIMIT_S = 30
# A gateway may merge the role into the first text and omit the usage: a stream with a few events fewer is complete.
_MAY_LACK = 4


@dataclass(frozen=True, slots=True)
class Extent:
    """The duration of each measurement, in seconds."""

    rounds: int
    round_s: float
    warm_up_s: float
    latency_s: float
    streams: int


FULL = Extent(rounds=3, round_s=2.0, warm_up_s=0.5, latency_s=4.0, streams=5000)
QUICK = Extent(rounds=1, round_s=1.5, warm_up_s=0.5, latency_s=3.0, streams=1000)


@dataclass(slots=True)
class Result:
    """One subject's figures, by the names that tables and the JSON file use. Unsupported ones are absent."""

    name: str
    version: str
    figures: dict[str, float] = field(default_factory=dict)
    growth: dict[str, float] = field(default_factory=dict)
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Bench:
    """The tools, the stub's ports, and how long to measure."""

    tools: Tools
    ports: Mapping[str, int]
    cores: Cores
    folder: Path
    extent: Extent
    burst_events: int
    paced_events: int
    say: Say

    def measure(self, subject: Subject) -> Result:
        """Start the subject and measure everything that it supports."""
        result = Result(subject.name, subject.version())
        self.say(f"{subject.name}: {result.version}")
        subject.start(self.folder, self.ports, self.cores).process.stop()  # compiles, and warms the disk's cache
        starts = [self._start_once(subject) for _ in range(self.extent.rounds - 1)]
        running = subject.start(self.folder, self.ports, self.cores)
        with running.process:
            result.figures["start_s"] = statistics.median([*starts, running.start_s])
            for scenario, request in subject.requests.items():
                self.check(running.port, scenario, request)
            self._costs(subject, running, result)
            if "json" in subject.requests:
                self._latency(subject.requests["json"], running, result, "added", self.extent.rounds)
            result.figures["rss_mb"] = running.process.rss_kb / 1024
            if "held" in subject.requests:
                self._hold(subject, running, result)
        return result

    def _start_once(self, subject: Subject) -> float:
        running = subject.start(self.folder, self.ports, self.cores)
        running.process.stop()
        return running.start_s

    def direct(self) -> Result:
        """Measure the stub itself, without a gateway: the limit of the tools."""
        result = Result("(the stub itself)", self.tools.made_of)
        request = Request("/v1/chat/completions", b'{"model":"m"}')
        stream = Request("/v1/chat/completions", b'{"model":"m","stream":true}')
        done = self._load(self.ports["fast"], request, connections=_CONNECTIONS)
        result.figures["json_per_s"] = done["requests"] / done["seconds"]
        done = self._paced(self.ports["paced"], stream)
        for share in ("p50", "p99"):
            result.figures[f"event_{share}_ms"] = done["delay_us"].get(share, 0) / 1000
        return result

    def sample(self, scenario: str, subject: Subject, running: Running) -> float | None:
        """Measure one round of a scenario.
        Returns:
            CPU µs of a request, a stream or (`paced`) an event; for `added` the added latency in ms at p50. None if the
            subject does not support the scenario, or an answer was wrong.
        """
        request = subject.requests.get("json" if scenario == "added" else scenario)
        if request is None:
            return None
        figure: float
        if scenario == "added":
            direct, through = self._both_ways(request, running)
            done, figure = through, (through["latency_us"]["p50"] - direct["latency_us"]["p50"]) / 1000
        elif scenario == "paced":
            done = self._paced(running.port, request, running)
            figure = _us_each(done, "events")
        else:
            done = self._load(
                running.port, request, running, connections=_CONNECTIONS, min_events=self._events_of(scenario)
            )
            figure = _us_each(done, "requests")
        if done["errors"]:
            self.say(f"{subject.name}, {scenario}: {done['errors']} answers were wrong, so this round does not count")
            return None
        return figure

    def at_rate(self, subject: Subject, running: Running, rate: int) -> float:
        """Return the CPU µs of a JSON request at a fixed number of requests per second. Raises RuntimeError."""
        done = self._load(running.port, subject.requests["json"], running, connections=8, rate=rate)
        if done["errors"]:
            raise RuntimeError(f"{subject.name}: {done['errors']} answers were wrong")
        return _us_each(done, "requests")

    # ---- scenarios ----

    def _costs(self, subject: Subject, running: Running, result: Result) -> None:
        requests, figures = subject.requests, result.figures
        for scenario in ("json", "burst", "gemini"):
            if scenario not in requests:
                continue
            events = self._events_of(scenario)
            done = [
                self._load(running.port, requests[scenario], running, connections=_CONNECTIONS, min_events=events)
                for _ in range(self.extent.rounds)
            ]
            result.errors += sum(item["errors"] for item in done)
            figures[f"{scenario}_us"] = statistics.median(_us_each(item, "requests") for item in done)
            figures[f"{scenario}_per_s"] = statistics.median(item["requests"] / item["seconds"] for item in done)
            self.say(f"  {scenario}: {figures[f'{scenario}_us']:.0f} µs, {figures[f'{scenario}_per_s']:.0f}/s")
        if "paced" not in requests:
            return
        done = [self._paced(running.port, requests["paced"], running) for _ in range(self.extent.rounds)]
        result.errors += sum(item["errors"] for item in done)
        figures["paced_us"] = statistics.median(_us_each(item, "events") for item in done)
        for share in ("p50", "p99"):
            figures[f"event_{share}_ms"] = statistics.median(item["delay_us"].get(share, 0) / 1000 for item in done)
        self.say(f"  paced: {figures['paced_us']:.1f} µs per event, delayed by {figures['event_p50_ms']:.2f} ms at p50")

    def _events_of(self, scenario: str) -> int:
        return 0 if scenario == "json" else self.burst_events - _MAY_LACK

    def _paced(self, port: int, request: Request, running: Running | None = None) -> dict[str, Any]:
        events = self.paced_events - _MAY_LACK
        return self._load(port, request, running, connections=_PACED_STREAMS, min_events=events, ramp_ms=10)

    def _latency(self, request: Request, running: Running, result: Result, name: str, rounds: int) -> None:
        direct: list[dict[str, Any]] = []
        through: list[dict[str, Any]] = []
        for _ in range(rounds):
            one, other = self._both_ways(request, running)
            direct.append(one)
            through.append(other)
        result.errors += sum(item["errors"] + item["missed"] for item in through)
        for share in ("p50", "p99"):
            longer, shorter = (statistics.median(item["latency_us"][share] for item in of) for of in (through, direct))
            result.figures[f"{name}_{share}_ms"] = (longer - shorter) / 1000
        self.say(f"  {name}: {result.figures[f'{name}_p50_ms']:.2f} / {result.figures[f'{name}_p99_ms']:.2f} ms")

    def _both_ways(self, request: Request, running: Running) -> tuple[dict[str, Any], dict[str, Any]]:
        """Send few requests per second, to the stub directly and then through the subject."""
        straight = Request("/v1/chat/completions", request.body, request.headers)
        timing: dict[str, Any] = {"connections": 8, "rate": _LATENCY_RATE, "seconds": self.extent.latency_s}
        return self._load(self.ports["fast"], straight, **timing), self._load(running.port, request, running, **timing)

    def _hold(self, subject: Subject, running: Running, result: Result) -> None:
        """Hold many open streams: measure the memory of each, and the latency of a request at the same time."""
        before_kb = running.process.rss_kb
        with self._held(running, subject.requests["held"]) as answer:
            held = answer["held"]
            result.figures["held"] = held
            result.errors += answer["errors"]
            if held:
                result.figures["stream_kb"] = (running.process.rss_kb - before_kb) / held
                self.say(f"  held: {held} streams, {result.figures['stream_kb']:.1f} KB each")
                self._latency(subject.requests["json"], running, result, "held", 1)

    @contextmanager
    def _held(self, running: Running, request: Request) -> Iterator[dict[str, Any]]:
        options = {"connections": self.extent.streams, "hold": 1, "min_events": 1, "seconds": _HOLD_LIMIT_S}
        command = self._command(running.port, request, (), options)
        with Cores.on(self.cores.others):
            holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        try:
            line = holder.stdout.readline() if holder.stdout else ""
            yield json.loads(line or '{"held": 0, "errors": 1}')
        finally:
            holder.communicate()

    def growth(self, python: str) -> dict[str, float]:
        """Return the CPU µs of a JSON request as one quantity grows. The variants alternate, so that drift affects all
        alike.

        """
        variants = {"8 deployments, 10 keys": Ours(python, name="small")}
        variants["1,000 deployments"] = Ours(python, deployments=1000, name="many-deployments")
        variants["5,000 keys"] = Ours(python, keys=5000, name="many-keys")
        found: dict[str, list[float]] = {}
        with contextlib.ExitStack() as stack:
            running = {name: subject.start(self.folder, self.ports, self.cores) for name, subject in variants.items()}
            for one in running.values():
                stack.enter_context(one.process)
            small = running.pop("8 deployments, 10 keys")
            cases = [(f"{count} connections", small, count) for count in (8, _CONNECTIONS, 512)]
            cases += [(name, one, _CONNECTIONS) for name, one in running.items()]
            request = next(iter(variants.values())).requests["json"]
            for _ in range(self.extent.rounds):
                for name, one, connections in cases:
                    done = self._load(one.port, request, one, connections=connections)
                    found.setdefault(name, []).append(_us_each(done, "requests"))
            starts = {f"start with {name}, s": one.start_s for name, one in running.items()}
            reloads = self._reloads(running["1,000 deployments"], request)
        figures = {f"JSON with {name}, µs": statistics.median(values) for name, values in found.items()}
        figures |= starts | reloads
        self.say("  growth: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
        return figures

    def _reloads(self, running: Running, request: Request) -> dict[str, float]:
        """Return how long a config change takes, and the slowest request in that time. The compile shares the subject's
        core.

        """
        took_s: list[float] = []
        slowest_ms: list[float] = []
        timing = {"connections": 8, "rate": _RELOAD_RATE, "seconds": _RELOAD_WINDOW_S, "warm_up": 0.0}
        for number in range(self.extent.rounds):
            with ThreadPoolExecutor(1) as pool:
                loading = pool.submit(self._load, running.port, request, running, **timing)
                took_s.append(reload(running, f"{31 + number}s"))
                done = loading.result()
            slowest_ms.append(done["latency_us"]["max"] / 1000)
        return {
            "reload of 1,000 deployments, s": statistics.median(took_s),
            "slowest request meanwhile, ms": statistics.median(slowest_ms),
        }

    # ---- the load client ----

    def _load(self, port: int, request: Request, running: Running | None = None, **options: float) -> dict[str, Any]:
        """Run the load client once. Raises if it cannot measure."""
        timing = {"seconds": self.extent.round_s, "warm_up": self.extent.warm_up_s}
        pids = running.process.pids if running else ()
        command = self._command(port, request, pids, {**timing, **options})
        with Cores.on(self.cores.others):
            done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603  # our own client
        if done.returncode != 0:
            raise RuntimeError(f"the load client failed: {done.stderr.strip()}")
        counted: dict[str, Any] = json.loads(done.stdout)
        if not counted["requests"] and not counted["events"]:
            raise RuntimeError("no request was answered in a whole round")
        return counted

    def _command(self, port: int, request: Request, pids: Sequence[int], options: Mapping[str, float]) -> list[str]:
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as body:
            body.write(request.body)
        command = [*self.tools.load, "--port", str(port), "--target", request.target, "--body", body.name]
        for name, value in request.headers.items():
            command += ["--header", f"{name}: {value}"]
        for name, number in options.items():
            command += [f"--{name.replace('_', '-')}", str(number)]
        for pid in pids:
            command += ["--pid", str(pid)]
        return command

    def check(self, port: int, scenario: str, request: Request) -> None:
        """Send one request with another client, to check that the subject really answers."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", request.target, request.body, dict(request.headers))
            response = connection.getresponse()
            if scenario == "held":
                data = response.readline()
                is_complete = data.startswith(b"data: ")
            else:
                data = response.read()
                is_complete = b'"choices"' in data if scenario == "json" else data.rstrip().endswith(b"data: [DONE]")
            if response.status != 200 or not is_complete:
                raise RuntimeError(f"{scenario}: it answers {response.status} {data[-600:].decode('utf-8', 'replace')}")


def _us_each(done: Mapping[str, Any], counter: str) -> float:
    each: float = done["cpu_ns"] / 1000 / max(1, done[counter])
    return each
