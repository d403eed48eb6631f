"""What `gateway providers` and its subcommands do: list adapters, ask one for a word, begin a new one.

Heavy imports stand inside the functions, as in `gateway.cli`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from gateway.cli.terminal import compile_file, compiled_table, write_new
from gateway.operator_errors import CommandError

if TYPE_CHECKING:
    from gateway.model.config_version import ConfigVersion
    from gateway.model.deployment import Deployment
    from gateway.model.permit import Permit
    from providers.registry import Registry


_OK, _FAILED = 0, 1
_WIDTH = 100
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TEMPLATES = Path(__file__).parent / "templates" / "provider"
_QUESTION = "Reply with the word OK."


def listing(options: argparse.Namespace) -> int:
    """List the adapters that are installed here."""
    from providers.registry import load_registry

    registry = load_registry()
    unknown = [name for name in options.names if name not in registry.adapters and name not in registry.broken]
    if unknown:
        raise CommandError(f"there is no provider {unknown[0]!r}; there are: {', '.join(sorted(registry.adapters))}")
    if options.markdown:
        from gateway.cli.provider_pages import providers_page

        chosen = {name: one for name, one in registry.adapters.items() if not options.names or name in options.names}
        print(providers_page(chosen), end="")
        return _OK
    facts = _facts(registry, options.names)
    if options.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(_block(name, fact) for name, fact in facts.items()))
    return _OK


def models(options: argparse.Namespace) -> int:
    """List models, or the deployments of a config, with what they cost and when they end."""
    from gateway.cli.provider_pages import deployments_text, models_page, models_text
    from providers.registry import load_registry

    adapters = load_registry().adapters
    if unknown := [name for name in options.names if name not in adapters]:
        raise CommandError(f"there is no provider {unknown[0]!r}; there are: {', '.join(sorted(adapters))}")
    if options.config is not None:
        deployments = compile_file(options.config, resolve_secrets=False).table.deployments.values()
        print(deployments_text(one for one in deployments if not options.names or one.provider in options.names))
        return _OK
    chosen = {name: one for name, one in adapters.items() if not options.names or name in options.names}
    print(models_page(chosen) if options.markdown else models_text(chosen), end="")
    return _OK


def _facts(registry: Registry, names: list[str]) -> dict[str, dict[str, Any]]:
    facts: dict[str, dict[str, Any]] = {}
    for name, adapter in sorted(registry.adapters.items()):
        facts[name] = {
            "features": sorted(adapter.capabilities.features),
            "parameters": sorted(adapter.capabilities.parameters),
            "sites": {
                site.name: {
                    "origin": site.origin,
                    "stores": str(site.residency.stores),
                    "processes": str(site.residency.processes),
                    "api_key_env": site.api_key_env,
                    "credential": bool(site.api_key_env and os.environ.get(site.api_key_env)),
                }
                for site in adapter.sites.values()
            },
        }
    facts |= {name: {"broken": reason} for name, reason in sorted(registry.broken.items())}
    return {name: fact for name, fact in facts.items() if not names or name in names}


def _block(name: str, fact: dict[str, Any]) -> str:
    if "broken" in fact:
        return f"{name}\n  doesn't load: {fact['broken']}"
    lines = [name, *_words("can", ["text", *fact["features"]]), *_words("tunes", fact["parameters"])]
    if not fact["sites"]:
        return "\n".join([*lines, "  sites   none of its own: give a URL as `endpoint`"])
    rows = [
        (
            site,
            facts["origin"],
            f"stores {facts['stores']}, processes {facts['processes']}",
            f"{facts['api_key_env']} {'(set)' if facts['credential'] else '(not set)'}",
        )
        for site, facts in fact["sites"].items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for number, row in enumerate(rows):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        lines.append(f"  {'sites' if number == 0 else '':<6}  {cells}  {row[3]}".rstrip())
    return "\n".join(lines)


def _words(title: str, words: list[str]) -> list[str]:
    text = wrap(", ".join(words) or "nothing", _WIDTH - 10, break_on_hyphens=False)
    return [f"  {title if number == 0 else '':<6}  {line}" for number, line in enumerate(text)]


def check(options: argparse.Namespace) -> int:
    """Send one small real request to a deployment, the way traffic goes, and show the exchange."""
    import asyncio

    table = compiled_table(options)
    chosen = [one for one in table.deployments.values() if options.name in (one.name, one.provider)]
    if not chosen:
        raise CommandError(
            f"there is no deployment and no deployment's provider {options.name!r} in the config; "
            f"its deployments are: {', '.join(sorted(table.deployments))}"
        )
    statuses = [asyncio.run(_ask(table, deployment)) for deployment in chosen]
    return max(statuses)


async def _ask(table: ConfigVersion, deployment: Deployment) -> int:
    from gateway.assembly.application import transport_named
    from gateway.cli.exchange_log import ExchangeLog, masking, shown_exchange
    from gateway.config.problems import visible
    from gateway.execution.deadline import Deadline
    from gateway.execution.upstream_client import AttemptOptions, UpstreamClient
    from gateway.model.decision import Step
    from providers.chat import ChatRequest, UserMessage, text_of
    from providers.failures import ProviderFailed
    from providers.matching.capability_matching import without_parameters

    print(f"== {deployment.name}: {deployment.provider} {deployment.model} at {deployment.site}\n")
    if deployment.simulates is not None:
        print("not asked: it is a simulator, which runs in `gateway demo` only")
        return _FAILED
    permit = _permit(table, deployment)
    if permit is None:
        print(
            "not asked: it lies outside the boundary of every region, or has no approval there now: nothing may be sent"
        )
        return _FAILED
    if deployment.needs_credential and not deployment.credentials:
        print(f"not asked: its key isn't set ({', '.join(deployment.missing_credentials)})")
        return _FAILED
    request = ChatRequest("check", (UserMessage(_QUESTION),), max_tokens=64)
    dropped = frozenset({"max_tokens"} - deployment.capabilities.parameters)
    wire = deployment.adapter.build_request(without_parameters(request, dropped), deployment.target)
    log = ExchangeLog(transport_named("lean"))
    bounds, secret = table.resilience, deployment.credentials[0] if deployment.credentials else None
    deadline = Deadline.start(bounds.total_s, bounds.commit_s)
    try:
        step = Step(deployment, permit, dropped)
        options = AttemptOptions.within(bounds.commit_s, request, bounds)
        answer = await UpstreamClient(log).send(step, secret, options, deadline)
        said = text_of(answer.completion.choices[0].message.content) if answer.completion else ""
        status, verdict = _OK, f"it answered: {said!r}"
    except ProviderFailed as error:
        status, verdict = _FAILED, f"it failed ({error.failure.kind}): {error.failure.message}"
        if error.failure.detail:
            verdict += f"\n  {error.failure.detail}"
    finally:
        await log.aclose()
    mask = masking(log, wire.headers, deployment.credentials)
    for line in f"{shown_exchange(log, mask)}\n\n{mask(verdict)}\n".split("\n"):
        print(visible(line))
    return status


def _permit(table: ConfigVersion, deployment: Deployment) -> Permit | None:
    """Leave to ask it, as a region that may has it. The question is ours: nobody's prompt."""
    from gateway.policy.fence import prompt_permit

    now_s = time.time()
    permits = (prompt_permit(table, region, deployment, now_s) for region in table.regions.values())
    return next((permit for permit in permits if permit is not None), None)


def new(options: argparse.Namespace) -> int:
    """Write an adapter, its simulator, its test and its page from a template."""
    name: str = options.name
    if not _NAME.fullmatch(name):
        raise CommandError(
            f"{name!r} is no name for a provider: small letters, digits and single hyphens, such as acme"
        )
    module = name.replace("-", "_")
    words = {
        "{NAME}": name,
        "{MODULE}": module,
        "{CLASS}": "".join(part.capitalize() for part in name.split("-")),
        "{ENV}": module.upper(),
    }
    directory: Path = options.directory or Path(name)
    files = {
        f"{module}.py": "adapter.py.txt",
        f"{module}_simulator.py": "simulator.py.txt",
        f"test_{module}.py": "test.py.txt",
        f"{name}.md": "docs.md.txt",
        "pyproject.toml": "pyproject.toml.txt",
    }
    write_new(directory, {file: _filled(template, words) for file, template in files.items()})
    kit = f"--adapter {module}:ADAPTER --dialect {module}_simulator:DIALECT"
    print("\nFill in the numbered places, then hold it against the kit, which fails until it is right:\n")
    print('  python -m pip install "assistant-gateway[conformance]"    # the kit needs pytest, which this brings')
    print(f"  cd {directory}\n  python -m pytest --pyargs providers.conformance {kit}")
    return _OK


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (_TEMPLATES / template).read_text("utf-8")
    for word, value in words.items():
        text = text.replace(word, value)
    return text
