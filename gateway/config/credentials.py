"""Compile provider keys and fixed headers, and the gateway's own keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.config.endpoints import Endpoint
from gateway.config.problems import KeyPath, quoted
from gateway.config.schema.routing import DeploymentSection
from gateway.config.secret_references import Resolution, read_literal, secret_at
from gateway.config.validation import Draft, Findings
from gateway.model.config_version import Secrets
from providers.adapter import Adapter, TakesHeaders
from providers.auth import NoAuth, Secret, secret_problem

_LEAST_CHARACTERS = 32


def compile_secrets(draft: Draft, findings: Findings, references: Mapping[str, Resolution]) -> Secrets:
    """The gateway's own keys, and a finding where one is needed and missing."""
    section = draft.config.secrets
    secrets = Secrets(
        _secret(findings, ("secrets", "consent"), section.consent, references),
        _secret(findings, ("secrets", "identity"), section.identity, references),
    )
    deployments = draft.config.deployments
    asking = next((name for name, item in deployments.items() if item.consent is not None), None)
    if asking is not None and section.consent is None and not draft.is_broken("secrets") and not draft.config.demo:
        message = "`secrets.consent` is not set: a consent token ends with the process, and no other gateway takes it"
        findings.warn(("deployments", asking, "consent"), message, "write secrets: {consent: ${CONSENT_SECRET}}")
    for name, item in deployments.items():
        if item.identity == "hash" and section.identity is None and not draft.is_broken("secrets"):
            hint = "write secrets: {identity: ${IDENTITY_SECRET}}"
            findings.error(("deployments", name, "identity"), "needs `secrets.identity`, which makes pseudonyms", hint)
    return secrets


def _secret(findings: Findings, path: KeyPath, text: str | None, references: Mapping[str, Resolution]) -> Secret | None:
    if text is None:
        return None
    found = secret_at(findings, path, text, references, "NAME")
    if problem := found.mistake or found.missing:
        findings.error(path, f"{found.source or 'the secret'} {problem}", found.hint or "set it, or remove it here")
    elif found.secret is not None and not found.is_stand_in and len(found.secret.reveal()) < _LEAST_CHARACTERS:
        hint = "make one: openssl rand -base64 32"
        findings.error(path, f"is shorter than {_LEAST_CHARACTERS} characters", hint)
    return found.secret


_SIMULATED = (Secret("simulated:simulated"),)
"""Also a signature can be made with it: an id and a key."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """keys: used in turn. headers: sent with each call. missing: where what is unset should have come from.
    are_needed: whether it can't be called without a key."""

    keys: tuple[Secret, ...]
    headers: tuple[tuple[str, Secret], ...]
    missing: tuple[str, ...]
    are_needed: bool


def compile_credentials(
    findings: Findings,
    path: KeyPath,
    section: DeploymentSection,
    adapter: Adapter,
    endpoint: Endpoint,
    references: Mapping[str, Resolution],
) -> Credentials:
    """The keys and headers of a deployment. One whose header is unset has no key either: it is never asked."""
    keys, missing = _keys(findings, path, section, adapter, endpoint, references)
    are_needed = section.api_key is not None or not isinstance(adapter.auth, NoAuth)
    headers, unset = _headers(findings, path, section, adapter, endpoint, references)
    if unset:
        return Credentials((), (), (*missing, *unset), are_needed=True)
    return Credentials(keys, headers, missing, are_needed)


def _headers(
    findings: Findings,
    path: KeyPath,
    section: DeploymentSection,
    adapter: Adapter,
    endpoint: Endpoint,
    references: Mapping[str, Resolution],
) -> tuple[tuple[tuple[str, Secret], ...], tuple[str, ...]]:
    """The headers that are set, and where the others should have come from."""
    if not section.headers:
        return (), ()
    if endpoint.simulates is not None:
        findings.warn((*path, "headers"), "a simulator is never sent them", "remove them")
        return (), ()
    rules = adapter.headers if isinstance(adapter, TakesHeaders) else {}
    by_name = {name.lower(): name for name in rules}
    headers: dict[str, Secret] = {}
    unset: list[str] = []
    for name, text in section.headers.items():
        place = (*path, "headers", name)
        known = by_name.get(name.lower())
        if known is None or known in headers:
            there_are = f"there is {', '.join(sorted(rules))}" if rules else "there is none"
            why = "is there twice" if known is not None else f"is no header that {section.provider} may be sent"
            hint = f"a header can move prompts to another place, so each is known by name: {there_are}"
            findings.error(place, why, hint, key=True)
            continue
        found = references[text] if "${" in text else read_literal(text)
        source, secret = found.source or "the value", found.secret
        if found.mistake:
            findings.error(place, f"{source} {found.mistake}", found.hint)
        elif found.missing:
            findings.warn(place, f"{source} {found.missing}: never asked")
            unset.append(found.source or name)
        elif secret is not None and not found.is_stand_in and not rules[known].takes(secret.reveal()):
            findings.error(
                place, f"{source} is none that {quoted(known)} takes", f"it has the form {rules[known].value}"
            )
        elif secret is not None:
            headers[known] = secret
    return tuple(headers.items()), tuple(unset)


def _keys(
    findings: Findings,
    path: KeyPath,
    section: DeploymentSection,
    adapter: Adapter,
    endpoint: Endpoint,
    references: Mapping[str, Resolution],
) -> tuple[tuple[Secret, ...], tuple[str, ...]]:
    if endpoint.simulates is not None:
        if section.api_key is not None:
            findings.warn((*path, "api_key"), "a simulator is never sent a key", "remove it")
        return _SIMULATED, ()
    variable = (endpoint.facts.api_key_env if endpoint.facts is not None else "") or "API_KEY"
    if section.api_key is None:
        if isinstance(adapter.auth, NoAuth):
            return (), ()
        hint = f"write api_key: ${{{variable}}}"
        findings.warn((*path, "api_key"), "is missing: never asked", hint)
        return (), ("api_key",)
    keys: list[Secret] = []
    missing: list[str] = []
    for index, text in enumerate(section.api_key):
        place = (*path, "api_key", index)
        found = secret_at(findings, place, text, references, variable, called="key")
        if found.mistake:
            findings.error(place, f"{found.source or 'the key'} {found.mistake}", found.hint)
        elif found.missing:
            alone = "never asked" if len(section.api_key) == 1 else "this key is not used"
            findings.warn(place, f"{found.source or 'the key'} {found.missing}: {alone}")
            missing.append(found.source or "api_key")
        if found.secret is not None and (problem := secret_problem(adapter.auth, found.secret)) is not None:
            findings.error(place, f"{found.source or 'the key'} {problem}")
        elif found.secret is not None:
            keys.append(found.secret)
    return tuple(keys), tuple(missing)
