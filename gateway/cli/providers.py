"""The command `gateway providers` and its subcommands: list providers and models, check a deployment, start an adapter.

Large imports are inside the functions, so that a command imports only what it needs and `--help` starts fast.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from gateway.cli.terminal import aligned, compile_file, json_text, settings_of, write_new
from gateway.operator_errors import CommandError

if TYPE_CHECKING:
    from gateway.model.config_version import ConfigVersion
    from gateway.model.deployment import Deployment
    from gateway.model.permit import Permit
    from providers.adapter import Adapter
    from providers.evidence import Citation
    from providers.registry import Registry


_OK, _FAILED = 0, 1
_WIDTH = 100
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TEMPLATES = Path(__file__).parent / "templates" / "provider"
_QUESTION = "Reply with the word OK."
_FILES: Mapping[bool, Mapping[str, str]] = {
    False: {
        "{MODULE}.py": "adapter.py.txt",
        "{MODULE}_simulator.py": "simulator.py.txt",
        "test_{MODULE}.py": "test.py.txt",
        "pyproject.toml": "pyproject.toml.txt",
    },
    True: {
        "{MODULE}.py": "compatible.py.txt",
        "{MODULE}.toml": "compatible.toml.txt",
        "test_{MODULE}.py": "compatible_test.py.txt",
        "pyproject.toml": "compatible_pyproject.toml.txt",
    },
}
"""The template of each file of a new adapter, without and with `--compatible`."""
_SDKS = frozenset(
    "ai21 aleph_alpha_client anthropic boto3 cerebras cohere dashscope deepseek fireworks groq huggingface_hub "
    "mistralai ollama openai openrouter perplexity qianfan reka replicate sambanova together "
    "volcenginesdkarkruntime writerai xai_sdk zai zhipuai".split()
)
"""Modules of vendors' SDKs, which are usually installed next to the gateway."""


def listing(options: argparse.Namespace) -> int:
    """List the installed providers (`gateway providers list`)."""
    from providers.registry import load_registry

    registry = load_registry()
    known = _chosen([name for name in options.names if name not in registry.broken])
    if options.markdown:
        from gateway.cli.provider_pages import providers_page

        chosen = {name: one for name, one in known.items() if not options.names or name in options.names}
        print(providers_page(chosen), end="")
        return _OK
    facts = _facts(registry, options.names)
    print(json_text(facts) if options.json else "\n\n".join(_block(name, fact) for name, fact in facts.items()))
    return _OK


def show(options: argparse.Namespace) -> int:
    """Show a provider, or what its errors mean (`gateway providers show`)."""
    from gateway.cli.error_tables import errors_text

    if not options.errors:
        return listing(argparse.Namespace(names=options.names, json=False, markdown=False))
    print(errors_text(_chosen(options.names)), end="")
    return _OK


def _chosen(names: list[str]) -> dict[str, Adapter]:
    """Return the adapters of these names, or all. Raises CommandError."""
    from providers.registry import load_registry

    adapters = load_registry().adapters
    if unknown := [name for name in names if name not in adapters]:
        raise CommandError(f"there is no provider {unknown[0]!r}; the providers are: {', '.join(sorted(adapters))}")
    return {name: one for name, one in adapters.items() if not names or name in names}


def models(options: argparse.Namespace) -> int:
    """List models, or the deployments of a config, with prices and retirement dates (`gateway providers models`)."""
    from gateway.cli.provider_pages import deployments_text, models_page, models_text

    chosen = _chosen(options.names)
    if options.config is not None:
        deployments = compile_file(options.config, resolve_secrets=False).config.deployments.values()
        chosen_ones = (one for one in deployments if not options.names or one.provider in options.names)
        print(deployments_text(chosen_ones, time.time()))
        return _OK
    print(models_page(chosen) if options.markdown else models_text(chosen), end="")
    return _OK


def _facts(registry: Registry, names: list[str]) -> dict[str, dict[str, Any]]:
    from gateway.cli.provider_pages import is_unconfirmed

    facts: dict[str, dict[str, Any]] = {}
    for name, adapter in sorted(registry.adapters.items()):
        facts[name] = {
            "features": sorted(adapter.capabilities.features),
            "parameters": sorted(adapter.capabilities.parameters),
            "unconfirmed": is_unconfirmed(adapter),
            "sites": {
                site.name: {
                    "origin": site.origin,
                    "stores": str(site.residency.stores),
                    "processes": str(site.residency.processes),
                    "api_key_env": site.api_key_env,
                    "credential": bool(site.api_key_env and os.environ.get(site.api_key_env)),
                    **_cited(site.citation),
                    "scopes": [
                        {
                            "models": list(scope.models),
                            "stores": str(scope.residency.stores),
                            "processes": str(scope.residency.processes),
                            **_cited(scope.citation or site.citation),
                        }
                        for scope in site.scopes
                    ],
                    "available": {
                        "serves": str(site.availability.places),
                        "published": site.availability.published,
                        "list": site.availability.listed_as,
                        **_cited(site.availability.citation or site.citation),
                    },
                }
                for site in adapter.sites.values()
            },
            **_offers(adapter),
        }
    facts |= {name: {"broken": reason} for name, reason in sorted(registry.broken.items())}
    return {name: fact for name, fact in facts.items() if not names or name in names}


def _offers(adapter: Adapter) -> dict[str, Any]:
    """Return the prices and retirements of a provider, each with its source."""
    from providers.adapter import KnowsOffers
    from providers.catalogue.prices import Offers, shown_amount

    offers = adapter.offers if isinstance(adapter, KnowsOffers) else Offers()
    return {
        "prices": [
            {
                "models": list(row.models),
                "sites": sorted(row.sites),
                "currency": row.price.currency,
                "input": shown_amount(row.price.rates.input),
                "output": shown_amount(row.price.rates.output),
                **({"search": shown_amount(row.price.search)} if row.price.search is not None else {}),
                **({"valid_from": str(row.price.valid_from)} if row.price.valid_from is not None else {}),
                **_cited(row.price.citation),
            }
            for row in offers.prices
        ],
        "retirements": [
            {
                "models": list(row.named),
                **{key: str(day) for key, day in row.days.items()},
                **({"to": row.to} if row.to else {}),
                **({"earliest": True} if row.earliest else {}),
                "firm": row.is_stated and not row.earliest,
                "instead": row.instead,
                **_cited(row.citation),
            }
            for row in offers.retirements
        ],
    }


def _cited(citation: Citation) -> dict[str, str]:
    """Return the source, the quotation and the day of a fact, and what is not confirmed about it."""
    return {
        "source": citation.source,
        "quote": citation.quote,
        "as_of": str(citation.as_of or ""),
        "unconfirmed": citation.unconfirmed,
    }


def _block(name: str, fact: dict[str, Any]) -> str:
    if "broken" in fact:
        return f"{name}\n  can't be loaded: {fact['broken']}"
    lines = [name, *_words("can", ["text", *fact["features"]]), *_words("tunes", fact["parameters"])]
    if fact["unconfirmed"]:
        lines.append("  state   unconfirmed: `gateway providers check` compares these facts with an answer")
    if not fact["sites"]:
        return "\n".join([*lines, "  sites   none: set a URL as `endpoint`"])
    rows = [
        (
            "" if number else "  sites ",
            site,
            facts["origin"],
            f"stores {facts['stores']}, processes {facts['processes']}",
            _day_and_mark(facts),
            f"{facts['api_key_env']} {'(set)' if facts['credential'] else '(not set)'}",
        )
        for number, (site, facts) in enumerate(fact["sites"].items())
    ]
    return "\n".join([*lines, aligned(rows)])


def _day_and_mark(facts: Mapping[str, Any]) -> str:
    if not facts["as_of"]:
        return "no source"
    return f"as of {facts['as_of']}{', unconfirmed in part' if facts['unconfirmed'] else ''}"


def _words(title: str, words: list[str]) -> list[str]:
    text = wrap(", ".join(words) or "nothing", _WIDTH - 10, break_on_hyphens=False)
    return [f"  {title if number == 0 else '':<6}  {line}" for number, line in enumerate(text)]


def check(options: argparse.Namespace) -> int:
    """Send one small real request to a deployment and print the exchange (`gateway providers check`)."""
    import asyncio

    config = compile_file(settings_of(options).config).config
    chosen = [one for one in config.deployments.values() if options.name in (one.name, one.provider)]
    if not chosen:
        raise CommandError(
            f"no deployment in the config has the name or the provider {options.name!r}; "
            f"the deployments are: {', '.join(sorted(config.deployments))}"
        )
    state_dir = settings_of(options).state_dir
    statuses = [asyncio.run(_send_check(config, deployment, state_dir)) for deployment in chosen]
    return max(statuses)


async def _send_check(config: ConfigVersion, deployment: Deployment, state_dir: Path | None) -> int:
    from gateway.assembly.usage import command_accounting
    from gateway.cli.exchange_log import ExchangeLog, exchange_text, secret_mask
    from gateway.cli.provider_facts import compared
    from gateway.config.problems import visible
    from gateway.execution.deadline import Deadline
    from gateway.execution.transport import PoolTransport
    from gateway.execution.upstream_client import AttemptOptions, UpstreamClient
    from gateway.model.decision import Step
    from gateway.model.record import Record
    from gateway.usage.refusals import CallRefused
    from providers.chat import ChatRequest, UserMessage, text_of
    from providers.failures import ProviderFailed
    from providers.matching.capability_matching import without_parameters
    from providers.wire import WireResponse

    print(f"== {deployment.name}: {deployment.provider} {deployment.model} at {deployment.site}\n")
    permit = permit_of(config, deployment)
    if isinstance(permit, str):
        print(f"not sent: {permit}")
        return _FAILED
    request = ChatRequest("check", (UserMessage(_QUESTION),), max_tokens=64)
    dropped = frozenset({"max_tokens"} - deployment.capabilities.parameters)
    wire = deployment.adapter.build_request(without_parameters(request, dropped), deployment.target)
    log = ExchangeLog(PoolTransport())
    bounds, secret = config.resilience, deployment.credentials[0] if deployment.credentials else None
    deadline = Deadline.start(bounds.total_s, bounds.commit_s)
    try:
        step = Step(deployment, permit, dropped)
        options = AttemptOptions(request, bounds.commit_s, bounds.connect_s, bounds.idle_s)
        async with command_accounting(state_dir, config) as accounting:
            if accounting is not None:
                options.usage = accounting.internal_request(config, Record("check", time.monotonic(), config.version))
            answer = await UpstreamClient(log).send(step, secret, options, deadline)
        text = text_of(answer.completion.choices[0].message.content) if answer.completion else ""
        status, verdict = _OK, f"it answered: {text!r}"
        if answer.completion is not None:
            response = WireResponse(log.status or 200, log.answer_headers, bytes(log.answer_body), 0)
            lines = compared(deployment, answer.completion, response)
            verdict += "\n\ncompared with the facts of the adapter and the catalogue:" + "".join(
                f"\n  {line}" for line in lines
            )
    except CallRefused as error:
        print(f"not sent: `usage.internal_project` pays for it: {error.message}")
        return _FAILED
    except ProviderFailed as error:
        status, verdict = _FAILED, f"it failed ({error.failure.kind}): {error.failure.message}"
        if error.failure.detail:
            verdict += f"\n  {error.failure.detail}"
    finally:
        await log.aclose()
    mask = secret_mask(log, wire.headers, deployment.credentials)
    for line in f"{exchange_text(log, mask)}\n\n{mask(verdict)}\n".split("\n"):
        print(visible(line))
    return status


def permit_of(config: ConfigVersion, deployment: Deployment) -> Permit | str:
    """Return the permit of the first region that may send prompts without a user's text to it, or why none may."""
    from gateway.policy.fence import prompt_permit

    if deployment.simulates is not None:
        return "the deployment is a simulator, which runs only in `gateway demo`"
    now_s = time.time()
    permits = (prompt_permit(config, region, deployment, now_s) for region in config.regions.values())
    permit = next((permit for permit in permits if permit is not None), None)
    if permit is None:
        return "every region's boundary excludes the deployment, or it has no valid approval there"
    if deployment.needs_credential and not deployment.credentials:
        return f"its API key is not set ({', '.join(deployment.missing_credentials)})"
    return permit


def new(options: argparse.Namespace) -> int:
    """Write an adapter, its simulator, its test and its page from a template (`gateway providers new`)."""
    name: str = options.name
    if not _NAME.fullmatch(name):
        raise CommandError(
            f"{name!r} is not a valid provider name: use small letters, digits and single hyphens, for example acme"
        )
    module: str = options.package or name.replace("-", "_")
    directory: Path = options.directory or Path(name)
    if not module.isidentifier() or iskeyword(module):
        raise CommandError(f"--package: {module!r} is not a valid name of a Python module, such as acme_adapter")
    if (owner := _owner_of(module, directory)) is not None:
        raise CommandError(
            f"the package name {module!r} is taken: {owner}. An adapter of that name would hide it; "
            f"choose another one, for example --package {module}_adapter"
        )
    words = {
        "{NAME}": name,
        "{MODULE}": module,
        "{CLASS}": "".join(part.capitalize() for part in name.split("-")),
        "{ENV}": name.replace("-", "_").upper(),
    }
    files = {file.replace("{MODULE}", module): template for file, template in _FILES[options.compatible].items()}
    files[f"{name}.md"] = "docs.md.txt"
    write_new(directory, {file: _filled(template, words) for file, template in files.items()})
    simulator = module if options.compatible else f"{module}_simulator"
    kit = f"--adapter {module}:ADAPTER --simulator {simulator}:SIMULATOR"
    if options.compatible:
        print(f"\nWrite the vendor's differences into {module}.toml. Then run the conformance kit:\n")
    else:
        print("\nComplete the numbered parts: each run of pytest names the next one. Then run the conformance kit,")
        print("which fails until the adapter is correct. If the vendor speaks OpenAI's dialect, use --compatible:")
        print("it needs only a TOML file.\n")
    print("  python -m pip install hypothesis pytest    # the kit needs them")
    print(f"  cd {directory}\n  python -m pytest --pyargs providers.conformance {kit}")
    return _OK


def _owner_of(module: str, directory: Path) -> str | None:
    """Return what has this module's name already, or None. Files in the directory of the new adapter do not count."""
    if module in sys.stdlib_module_names:
        return "it is a module of Python"
    if module in _SDKS:
        return "it is a vendor's own SDK"
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    origin = None if spec is None else spec.origin
    if origin is None or Path(origin).is_relative_to(directory.absolute()) or Path(origin).is_relative_to(Path.cwd()):
        return None
    return f"it is installed at {origin}"


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (_TEMPLATES / template).read_text("utf-8")
    for word, value in words.items():
        text = text.replace(word, value)
    return text
