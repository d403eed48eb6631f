"""Run the demo: the gateway on simulated providers, without keys and without a network.

Requests from five places show how the gateway routes. A provider does not serve one of them, and one is blocked.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from gateway.api.admin_control import Control
from gateway.api.caller.authentication import is_this_machine
from gateway.api.raw_responses import Application
from gateway.assembly.receipts import check_receipts
from gateway.changes.compile_job import CompileJob
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Plan
from gateway.model.deployment import Deployment
from gateway.operator_errors import CommandError
from gateway.policy.location.resolution import resolve
from gateway.policy.routing import decide
from gateway.policy.territory_answers import NO_NEEDS
from gateway.server.fault_switch import FaultSwitch, fault_text
from gateway.server.host import Host, Operators
from gateway.server.keepers import keeping, recording_the_end
from gateway.server.simulation import Rehearsal, Simulation, simulating, simulators_of
from gateway.server.start import is_loopback, listeners
from gateway.server.uvicorn_server import run, url_of
from gateway.server.worker import OwnWorker, Worker
from gateway.server.workers import WorkerSettings
from gateway.service.explain import reports_from
from gateway.settings import Settings
from gateway.telemetry.log import configure
from gateway.usage.quota_store import QuotaStore
from providers.territories import territory_data, territory_name
from providers.value import Value

if TYPE_CHECKING:
    from gateway.changes.initial_config import InitialConfig
    from gateway.config.real_deployment import RealDeployment

_PLACES: tuple[tuple[str, str, str], ...] = (
    ("China", "CN", "你好！你是谁？"),
    ("Germany", "DE", "Hello! Who are you?"),
    ("United States", "US", "Hello! Who are you?"),
    ("Hong Kong", "HK", "Hello! Who are you?"),
    ("Cuba", "CU", "Hello! Who are you?"),
)
_QUESTION = "Hello! Who are you?"
_LIKELY = ("JP", "GB", "SG", "IN", "CA", "BR")  # an example of a caller that a real deployment answers
_COLUMNS = ("from", "region", "why", "deployment", "provider", "answer", "ms")
_ANSWER_WIDTH = 38
_INTERNAL_ERROR = 500


class ExampleRequestFailed(CommandError):
    """The gateway failed to handle a request of the demo itself. The message names the request and the reason."""

    status = 1


class PreparedApplication(Protocol):
    """An application that can compute something in advance: the gateway with the console in front of it."""

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """Handle one ASGI connection."""

    async def prepare(self) -> None:
        """Compute in advance what the first page needs."""


BuildConsole = Callable[[Application, Control], PreparedApplication]


class Demo(Value, frozen=True):
    """How a demo is shown."""

    is_rehearsal: bool
    """Print the injected faults in place of the answers to the example requests, which may fail."""
    territory: str | None
    """The territory of callers whom no signal locates, or None."""
    real: RealDeployment | None
    build_console: BuildConsole | None = None
    """Returns the application with the console in front of it, or None without a console."""


def serve_demo(
    settings: Settings,
    initial: InitialConfig,
    rehearsal: Rehearsal | None = None,
    territory: str | None = None,
    real: RealDeployment | None = None,
    build_console: BuildConsole | None = None,
) -> None:
    """Serve simulated providers until the process is stopped; raises CommandError.

    rehearsal: Their faults and speed; None for the plain demo.
    territory: The territory of callers whom no signal locates; None refuses them.
    real: The real deployment that is added.
    build_console: Puts the console in front of the application.
    """
    if real is not None and not is_loopback(settings.host):
        reason = f"with a real provider the demo serves this machine only, and {settings.host} is open to others"
        raise CommandError(f"{reason}: leave out --host (GATEWAY_HOST)")
    if real is not None and (unused := why_unused(initial.config, real)) is not None:
        raise CommandError(f"{unused}. `gateway init --example one-key` writes a config of your own")
    rehearsal = rehearsal or Rehearsal()
    simulators = simulators_of(initial.config, rehearsal)
    listener, operators = listeners(settings, or_a_free_port=True)
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    if not (address.is_loopback or address.is_unspecified):
        listener.close()
        operators.admin.close()
        reason = f"a demo serves its own machine only, whose requests do not come to {settings.host} from loopback"
        raise CommandError(f"{reason}: leave out --host (GATEWAY_HOST)")
    check_receipts(settings)
    demo = Demo(rehearsal.pace is not None, territory, real, build_console)
    job = CompileJob(str(settings.config), True, territory, written=initial.change_log is not None, real=real)
    with simulating(initial, job, simulators) as simulation:
        run(_run_demo(demo, simulation, listener, operators, settings))


async def _run_demo(
    demo: Demo, simulation: Simulation, listener: socket.socket, operators: Operators, settings: Settings
) -> None:
    """Serve the gateway with simulated providers until the process is stopped. Raises CommandError."""
    ready, servers = simulation.initial, simulation.servers
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(recording_the_end(ready))
        keepers = stack.enter_context(keeping(settings.state_dir, ready, operators.admin, simulation.job))
        live = keepers.live
        worker = Worker(0, live.config, WorkerSettings.of(settings, secrets.token_bytes(32)), QuotaStore())
        gateway, faults = worker.gateway, FaultSwitch(servers, lambda: worker.gateway.config, worker.gateway.move_clock)
        host = Host(OwnWorker(worker, listener), keepers, operators.with_tokens(live.clients), settings, faults=faults)
        console = demo.build_console(gateway, host) if demo.build_console is not None else None
        if console is not None:
            worker.serve_application(console)

        async def show() -> None:
            url, assistant = url_of(listener), next(iter(live.config.assistants))
            places, expected = _places_of(live.config), ""
            if demo.real is None:
                note = "Its providers are simulated: no key, no network, no model."
            else:
                answered = territories_of(live.config, assistant, demo.real.name, time.time())
                places, expected = _places_with(demo.territory, answered), demo.real.name
                note = _introduction(live.config.deployments[demo.real.name], demo.real, answered)
            _print(f"The gateway listens on {url}. {note}\n")
            if not is_this_machine(listener.getsockname()[0]):
                _print(_opened(settings.host, listener.getsockname()[1]))
            if demo.is_rehearsal:
                rows = [
                    (provider, site, f"{share:.0%}" if fault else "", fault_text(fault) if fault else "none")
                    for (provider, site), server in servers.items()
                    for fault, share in server.scenario.faults or ((None, 1.0),)
                ]
                _print(_text_table([("provider", "site", "share", "fault"), *rows]))
            elif (answers := await _answers(url, assistant, lambda: gateway.is_draining, places, expected)) is not None:
                _print(answers)
            else:
                return
            codes = [code for _, code, _ in places]
            _print_help(demo, (url, url_of(operators.admin)), assistant, settings.config, codes)
            # Flush first: the log begins now, without the example requests of the demo itself.
            gateway.flush()
            configure(settings.log_format, settings.log_level)
            if console is not None:
                await console.prepare()

        await host.run(show)


def _print(text: str) -> None:
    print(text, flush=True)


def _opened(host: str, port: int) -> str:
    """Return the description of what another machine can reach."""
    return (
        f"--host {host} opens port {port} to other machines. They get the documentation (/docs, /openapi.json)\n"
        "and the health check (/healthz). The API and the page answer this machine only; others get the status 403.\n"
    )


def why_unused(config: ConfigVersion, real: RealDeployment) -> str | None:
    """Return why no caller of the demo would get an answer of the real deployment, or None if some do."""
    deployment = config.deployments[real.name]
    if any(territories_of(config, name, real.name, time.time()) for name in config.assistants):
        return None
    if deployment.unmet:
        reason = f"the site {deployment.site} requires {', '.join(deployment.unmet)}, which a demo cannot attest"
    else:
        stores, processes = deployment.residency.stores, deployment.residency.processes
        reason = f"it stores in {stores} and processes in {processes}, and no route allows that for its users"
    return f"{real.name} would answer no caller of this demo: {reason}"


def territories_of(config: ConfigVersion, assistant: str, deployment: str, now_s: float) -> dict[str, list[str]]:
    """Return the territories whose callers this deployment answers first, by region."""
    answered: dict[str, list[str]] = {}
    for territory in sorted(territory_data().names):
        location = resolve(config, None, reports_from(territory))
        decision = decide(config, config.assistants[assistant], location, NO_NEEDS, {}, now_s)
        if isinstance(decision.outcome, Plan) and decision.outcome.steps[0].deployment.name == deployment:
            answered.setdefault(decision.outcome.region.name, []).append(territory)
    return answered


def _places_of(config: ConfigVersion) -> Sequence[tuple[str, str, str]]:
    """Return the usual places, or one of each region if no usual place is in a region."""
    if any(config.region_of(code) for _, code, _ in _PLACES):
        return _PLACES
    listed = {region.name: code for code, region in config.region_by_territory.items()}
    return [(territory_name(code), code, _QUESTION) for code in listed.values()][: len(_PLACES)]


def _places_with(own: str | None, answered: Mapping[str, Sequence[str]]) -> tuple[tuple[str, str, str], ...]:
    """Return the places of the example requests, the last of which the real deployment answers."""
    territories = [territory for listed in answered.values() for territory in listed]
    usual = (*_PLACES, *((territory_name(code), code, _QUESTION) for code in (own, *_LIKELY) if code is not None))
    found = [place for place in usual if place[1] in territories][:1]
    found = found or [(territory_name(code), code, _QUESTION) for code in territories[:1]]
    return (*(place for place in _PLACES if place not in found), *found)


def _introduction(deployment: Deployment, real: RealDeployment, answered: Mapping[str, Sequence[str]]) -> str:
    """Return the text that introduces the real deployment."""
    lines = [
        f"Its providers are simulated, except one.\n\n{real.name} is real: {deployment.provider} {deployment.model} at "
        f"{deployment.site} ({deployment.origin}), with your key in {real.key_variable}.\n"
        "Prompts to it leave this machine, and the vendor charges for them.\n",
        f"{real.name} answers callers in these territories. Simulated providers answer all others, and if it fails:\n",
    ]
    for region, territories in answered.items():
        lines += wrap(", ".join(territories), 100, initial_indent=f"  {region}: ", subsequent_indent="    ")
    return "\n".join(lines)


async def _answers(
    url: str,
    assistant: str,
    is_stopping: Callable[[], bool],
    places: Sequence[tuple[str, str, str]] = _PLACES,
    expected: str = "",
) -> str | None:
    """Send the example requests and return their answers as a table; None if the gateway is stopped meanwhile.

    `expected` is the deployment that should answer the last one.

    Raises ExampleRequestFailed.
    """
    try:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
            rows = [await _ask(client, assistant, *place) for place in places]
    except httpx.TransportError:
        # A gateway that is being stopped accepts no further connection.
        if is_stopping():
            return None
        raise
    table = _text_table([_COLUMNS, *(row.cells() for row in rows)])
    if skipped := [f"{row.place}: {row.skipped}, so {row.deployment} answers." for row in rows if row.skipped]:
        table += "\n\n" + "\n".join(skipped)
    if expected and rows[-1].deployment != expected:
        table += f"\n\n{expected} did not answer the last request. The log line of the next one has the reason."
    return table


def _print_help(demo: Demo, urls: tuple[str, str], assistant: str, config: Path, codes: Sequence[str]) -> None:
    url, admin_url = urls
    example = codes[0] if demo.real is None else codes[-1]
    if demo.build_console is not None:
        _print(f"\nOpen {url}/ in a browser: a map shows who answers where, and why. Or send a request:")
    else:
        _print("\nSend a request:")
    _print(
        f"  curl -i {url}/v1/chat/completions \\\n"
        f"    -H 'content-type: application/json' -H 'cf-ipcountry: {example}' \\\n"
        f'    -d \'{{"model": "{assistant}", "messages": [{{"role": "user", "content": "Hello! Who are you?"}}]}}\'\n'
    )
    _print(f"An edge would set the header with your territory. Try {', '.join(codes)}.")
    if demo.territory is not None:
        place = territory_name(demo.territory)
        _print(f"Without the header: your territory is {place}; choose another with --territory")
    _print(f"Explain a decision: curl '{url}/v1/explain?assistant={assistant}' -H 'cf-ipcountry: HK'")
    here = Path.cwd()
    shown = config.relative_to(here) if config.is_relative_to(here) else config
    _print(f"Configuration:      {shown}, watched for changes")
    _print(f"API documentation:  {url}/docs")
    _print(f"For operators:      curl {admin_url}/readyz")
    _print("Stop:               Ctrl-C")


class _Row(Value, frozen=True):
    place: str
    region: str
    why: str
    deployment: str
    provider: str
    answer: str
    elapsed_ms: float
    skipped: str

    def cells(self) -> tuple[str, ...]:
        answer = _first_words(self.answer)
        return (self.place, self.region, self.why, self.deployment, self.provider, answer, f"{self.elapsed_ms:.1f}")


async def _ask(client: httpx.AsyncClient, assistant: str, place: str, territory: str, question: str) -> _Row:
    body = {"model": assistant, "messages": [{"role": "user", "content": question}]}
    headers = {"cf-ipcountry": territory}
    started_at = time.perf_counter()
    response = await client.post("/v1/chat/completions", json=body, headers=headers)
    elapsed_ms = (time.perf_counter() - started_at) * 1000
    if response.status_code == _INTERNAL_ERROR:
        raise _failed_example(response)
    explanation = await client.get("/v1/explain", params={"assistant": assistant}, headers=headers)
    if not explanation.is_success:
        raise _failed_example(explanation)
    explained: Any = explanation.json()
    answer: Any = response.json()
    deployment = response.headers.get("x-gateway-deployment", "-")
    considered = explained["considered"]
    # As the page: the deployments before the one that answered, with the reasons why they were skipped.
    passed = takewhile(lambda item: item["deployment"] != deployment, considered)
    return _Row(
        place,
        response.headers.get("x-gateway-region", "-"),
        response.headers.get("x-gateway-why", "-"),
        deployment,
        next((item["provider"] for item in considered if item["deployment"] == deployment), "-"),
        answer["choices"][0]["message"]["content"] if response.is_success else answer["error"]["message"],
        elapsed_ms,
        "; ".join(item["detail"] for item in passed if not item["eligible"]) if response.is_success else "",
    )


def _failed_example(response: httpx.Response) -> ExampleRequestFailed:
    reason = "the log lines above have the reason"
    if response.status_code != _INTERNAL_ERROR:
        reason = response.text[:200]
    return ExampleRequestFailed(
        f"an example request of the demo failed: {response.request.method} {response.request.url.path} returned status "
        f"{response.status_code}: {reason}"
    )


def _text_table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _first_words(text: str) -> str:
    """Return as much of the text as fits its column."""
    if _width(text) <= _ANSWER_WIDTH:
        return text
    while _width(text) >= _ANSWER_WIDTH:
        text = text[:-1]
    return f"{text}…"


def _width(text: str) -> int:
    """Return the columns that a terminal uses: Chinese characters and full-width punctuation take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
