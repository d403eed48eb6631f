"""Compile `clients` and `cors`: clients by the hashes of their keys, with their limits, and the allowed web pages."""

from __future__ import annotations

from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.regions import Regions
from gateway.config.schema.file import ClientSection
from gateway.config.usage import SpendingCompiler
from gateway.config.validation import Draft, check_reference
from gateway.model.budget import NO_SPENDING_RULES
from gateway.model.config_version import Client, ClientLimitRule, Cors
from gateway.model.signed_token import token_key
from gateway.policy.location import SIGNALS
from providers.value import replace

_PREFIX = "sha256:"


def compile_clients(
    draft: Draft, regions: Regions, spending: SpendingCompiler | None = None, *, demo: bool
) -> dict[str, Client]:
    """Return the clients of a draft by the SHA-256 (hex) of each key. `spending` compiles their budgets."""
    sections = draft.config.clients
    if demo and sections:
        draft.error(("clients",), "in demo mode any key or none is accepted", "remove `clients`")
    if demo and draft.config.clients_source == "database":
        message = "in demo mode any key or none is accepted, so keys and budgets of the database have no effect"
        draft.error(("clients_source",), message, "remove `clients_source`, or `demo`")
    compiled: dict[str, Client] = {}
    by_token = {rule.gives for issuer in draft.config.token_issuers.values() for rule in issuer.clients}
    for name, section in sections.items():
        path: KeyPath = ("clients", name)
        _check_references(draft, regions, path, section)
        if section.limits == ClientLimitRule():
            draft.error((*path, "limits"), "sets no limit", "give it `rpm`, `concurrent` or `body_bytes`, or remove it")
        keys = [(key.hash.removeprefix(_PREFIX), key.expires) for key in section.keys or ()]
        is_given = section.keys is not None or draft.source.has((*path, "keys"))
        if not is_given and name not in by_token and draft.is_whole("token_issuers"):
            hint = "add the hash of a key (`gateway key new`), or a rule of `token_issuers` that names this client"
            if draft.config.token_issuers:
                # The removal of a rule revokes, so it must not be refused.
                draft.warn(path, "has neither keys nor a rule, so no request is answered for it", hint)
            else:
                draft.error((*path, "keys"), "is missing", hint)
        client = Client(
            name=name,
            assistants=frozenset(section.assistants) if section.assistants is not None else None,
            region=section.region,
            may_assert=frozenset(section.may_assert),
            limits=section.limits,
            spending=spending.client(name, section) if spending is not None else NO_SPENDING_RULES,
            priority=section.priority,
        )
        for index, (digest, until_s) in enumerate(keys):
            holder = compiled.setdefault(digest, replace(client, key_hash=digest, key_id=digest, until_s=until_s))
            if holder.name != name or any(digest == other for other, _ in keys[:index]):
                message = f"this key belongs to the client {quoted(holder.name)} already"
                draft.error((*path, "keys", index), message, "a key belongs to one client; remove one")
        if name in by_token:
            compiled[token_key(name)] = client
    return compiled


def compile_cors(draft: Draft, *, demo: bool) -> Cors | None:
    """Return the web pages that may call, or None if none may. In a demo, the pages of this machine may."""
    section = draft.config.cors
    if section is None:
        return Cors(loopback=True) if demo else None
    if "*" in section.origins and not draft.names("clients") and not demo:
        message = "without `clients`, every page that a browser on this machine opens may send requests and cause costs"
        draft.warn(("cors", "origins"), message, "list the origins of your own pages")
    if "*" in section.origins and len(section.origins) > 1:
        draft.warn(("cors", "origins"), "`*` allows every page: the other origins have no effect")
    headers = frozenset(name.lower().encode() for name in section.headers)
    return Cors(frozenset(section.origins) - {"*"}, "*" in section.origins, demo, headers)


def _check_references(draft: Draft, regions: Regions, path: KeyPath, section: ClientSection) -> None:
    check_assistants(draft, path, section.assistants or [])
    if section.region is not None:
        _check_region(draft, regions, (*path, "region"), section.region, section)
    used = {SIGNALS[name].client_right for name in draft.config.location.signals}
    for name, signal in SIGNALS.items():
        if signal.client_right in section.may_assert and signal.client_right not in used:
            draft.warn((*path, "may_assert"), f"has no effect: `{name}` is not among `location.signals`")


def check_assistants(draft: Draft, path: KeyPath, names: list[str]) -> None:
    """Report every name that is not an assistant."""
    known = draft.names("assistants")
    owners = {alias: name for name, owner in draft.config.assistants.items() for alias in owner.aliases}
    for index, name in enumerate(names):
        if name in known or draft.is_broken("assistants"):
            continue
        owner = owners.get(name)
        hint = (
            choice_hint(name, known) if owner is None else f"write {quoted(owner)}, the assistant that has this alias"
        )
        draft.error((*path, "assistants", index), f"unknown assistant {quoted(name)}", hint)


def _has_route(draft: Draft, section: ClientSection, region: str) -> bool:
    known = draft.config.assistants
    allowed = known if section.assistants is None else set(section.assistants) & known.keys()
    return not allowed or any(region in known[name].regions for name in allowed)


def _check_region(draft: Draft, regions: Regions, path: KeyPath, name: str, section: ClientSection) -> None:
    check_reference(draft, path, "regions", name)
    region = regions.by_name.get(name)
    if region is not None and draft.is_whole("assistants") and not _has_route(draft, section, name):
        draft.warn(path, f"none of its assistants has a route in {quoted(name)}: all its requests are refused")
    if region is not None and region.is_default:
        message = (
            f"{quoted(name)} is the default region: "
            "for a caller whose territory is unknown, availability is not checked"
        )
        draft.warn(path, message, "bind the key to a region that names its territories")
