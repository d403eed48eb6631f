"""What deployments ask of the person, what becomes of fields that say who asks, and the gateway's own keys for both."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.endpoints import Endpoint
from gateway.config.findings import Findings
from gateway.config.problems import Path
from gateway.config.references import Resolution, secret_at
from gateway.config.sections.routing import DeploymentSection
from gateway.config.validate import Draft
from gateway.model.consent import ConsentRule
from gateway.model.table import Secrets
from providers.auth import Secret

__all__ = ["compile_consent", "compile_secrets"]

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


def compile_consent(
    findings: Findings, path: Path, section: DeploymentSection, endpoint: Endpoint
) -> ConsentRule | None:
    """What the deployment asks of the person, if anything."""
    asked = section.consent
    if asked is None:
        return None
    if asked.recipient is None and endpoint.facts is None:
        message = f"nobody knows whose server {endpoint.site} is, and whom a person would agree to"
        findings.error((*path, "consent"), message, "say it: recipient: NAME")
    return ConsentRule(asked.recipient or section.provider, asked.mode, asked.on_missing)


def _secret(findings: Findings, path: Path, text: str | None, references: Mapping[str, Resolution]) -> Secret | None:
    if text is None:
        return None
    found = secret_at(findings, path, text, references, "NAME")
    if problem := found.mistake or found.missing:
        findings.error(path, f"{found.source or 'the secret'} {problem}", found.hint or "set it, or remove it here")
    elif found.secret is not None and not found.is_stand_in and len(found.secret.reveal()) < _LEAST_CHARACTERS:
        hint = "make one: openssl rand -base64 32"
        findings.error(path, f"is shorter than {_LEAST_CHARACTERS} characters", hint)
    return found.secret
