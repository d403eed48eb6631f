"""Compile the approvals and consent rules of a deployment."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.config.endpoints import Endpoint
from gateway.config.problems import KeyPath, quoted
from gateway.config.schema.routing import DeploymentSection
from gateway.config.validation import Draft, Findings, check_reference
from gateway.model.approval import Approval, Days, approvals_for, terms_of, why_unapproved
from gateway.model.config_version import Region
from gateway.model.consent import ConsentRule
from gateway.model.deployment import Deployment
from gateway.model.end_stages import EndStage, answering, redirect_of
from providers.value import replace

# The numbers in the lists of filings that the Cyberspace Administration of China publishes have these forms
# (cac.gov.cn, as of 2026-11-20). No form of registration numbers is published.
_FORMS = {
    ("CAC", "model_filing"): (r"[A-Za-z]+-[A-Za-z0-9]+-[0-9]{6,14}", "ZheJiang-TongYiQianWen-20230901"),
    ("CAC", "algorithm_filing"): (r"网信算备[0-9]{21}号", "网信算备330110507206401230035号"),
}


def compile_approvals(draft: Draft, name: str, days: Days, stages: Iterable[EndStage] = ()) -> tuple[Approval, ...]:
    """Return the approvals of a deployment. Warn of those that have expired or expire soon, or never count."""
    path: KeyPath = ("deployments", name, "approvals")
    section = draft.config.deployments[name]
    compiled = tuple(section.approvals)
    for index, approval in enumerate(compiled):
        _check_approval(draft, (*path, index), approval)
        if approval.model not in (None, section.model, *(it.to for it in stages if it.to)):
            message = f"it never counts: it is for {quoted(approval.model or '')}, which does not answer here"
            draft.warn((*path, index, "model"), message, f"write the vendor's name, such as {section.model}")
    counting = approvals_for(compiled, section.model, answering(section.model, redirect_of(stages), days))
    ends = [(approval.region, approval.valid_until) for approval in compiled]
    for term in terms_of({name: counting}, days):
        at = (*path, ends.index((term.region, term.last_day)))
        message = why_unapproved(counting, term.region, days) or ""
        hint = "add the renewed one to the list before that day"
        draft.warn_of_end(at, term, hint, message, is_kept=section.accept_ended)
    return compiled


def warn_if_unapproved(findings: Findings, path: KeyPath, deployment: Deployment, region: Region, days: Days) -> None:
    """Warn if the region requires an approval and the deployment has no record of one, or none for a redirect.

    A redirect by the vendor is as an approval that has ended: from the moment at which it acts, `check` fails.
    """
    if not region.approvals_required:
        return
    name, redirect = deployment.name, deployment.redirect
    if all(it.region != region.name for it in deployment.approvals):
        message = f"{quoted(name)} has no approval for region {quoted(region.name)}: it is skipped here"
        findings.warn(path, message, f"record it in `deployments.{name}.approvals`")
        return
    has_begun = redirect is not None and redirect.has_begun(days)
    why = deployment.why_unapproved(region.name, days)
    if why is not None and (has_begun or not deployment.approvals_on(days, region.name)):
        hint = f"record that of the model which answers in `deployments.{name}.approvals`, with its `model`"
        findings.warn(path, f"{quoted(name)} is skipped here: {why}", hint, fails_check=has_begun)


def _check_approval(draft: Draft, path: KeyPath, approval: Approval) -> None:
    check_reference(draft, (*path, "region"), "regions", approval.region)
    begins, ends = approval.valid_from, approval.valid_until
    if begins is not None and ends is not None and ends < begins:
        problem = f"it ends on {ends}, before it begins on {begins}"
        draft.error((*path, "valid_until"), problem, "change one of the dates")
    form, example = _FORMS.get((approval.authority, approval.kind), (".*", ""))
    if not re.fullmatch(form, approval.number):
        words = approval.kind.replace("_", " ")
        message = f"does not have the published form of the number of a {approval.authority} {words}"
        draft.warn((*path, "number"), message, f"such as {example}")


def compile_consent(
    findings: Findings, path: KeyPath, section: DeploymentSection, endpoint: Endpoint
) -> ConsentRule | None:
    """Return the consent that the deployment requires with its recipient, or None."""
    consent = section.consent
    if consent is None:
        return None
    if not consent.recipient and endpoint.facts is None:
        message = f"the operator of the server {endpoint.site} is unknown, so consent has no recipient"
        findings.error((*path, "consent"), message, "add recipient: NAME")
    return replace(consent, recipient=consent.recipient or section.provider)
