"""Check the routes of the uses that are not chats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.config.deployments import RouteEntry, warn_of_unknown_model
from gateway.config.problems import KeyPath, quoted
from gateway.config.validation import Findings
from gateway.model.deployment import Deployment, format_of
from gateway.model.served import INPUTS, Use
from providers.catalogue.models import best_match
from providers.moderations.guard_models import GuardModel

_MOST_BODY_BYTES = 32 * 1024 * 1024
_LACKS: Mapping[Use, str] = {
    "embeddings": "has no embeddings: {} offers none here",
    "moderations": "classifies no content",
    "rerank": "scores no documents: {} has no rerank here",
    "decisions": "decides nothing: {} has no decisions of this model here",
    "transcription": "writes no audio down: {} has no transcription here",
    "speech": "does not speak: {} has no speech here",
}
"""The report about a deployment without a use, with a place for its provider."""
_JUDGES = (
    "use OpenAI's moderation model, a server of your own that answers /moderations, or a guard model; "
    "`guard` names how a model with another name answers"
)


def check_input_route(findings: Findings, path: KeyPath, entries: list[RouteEntry], use: Use) -> None:
    """Report deployments that lack a use, and lists of deployments between which a failover changes what they give."""
    row = INPUTS[use]
    for entry in entries:
        deployment, listed = entry.deployment, row.listed(entry.deployment.provider)
        form = format_of(deployment, use)
        if form is None:
            message = f"{quoted(deployment.name)} {_LACKS[use].format(deployment.provider)}"
            hint = _JUDGES if use == "moderations" else "use a deployment of another provider"
            findings.error(entry.path, message, hint)
        # An own server has any model, and a price shows that the operator's own catalogue has this one.
        elif listed and best_match(listed, deployment.model) is None and deployment.price is None:
            warn_of_unknown_model(findings, entry.path, deployment.provider, deployment.model, listed)
        if use in deployment.excepts:
            message = f"the site {deployment.site} has no {use}, or no source states that it has them"
            findings.error(entry.path, message, "use a deployment at another site, or a server of your own")
        if form is not None and (doubt := row.doubt(form, deployment)):
            findings.warn(entry.path, *doubt)
        if use != "moderations" or not (form is None or isinstance(form, GuardModel) or deployment.verdicts):
            _check_pins(findings, entry, use)
        if use == "transcription":
            for message, hint in _of_files(deployment, has_use=form is not None):
                findings.warn(entry.path, message, hint)
    models = dict.fromkeys(entry.deployment.model for entry in entries)
    if row.number and len(models) > 1:
        message = f"the deployments have different models ({', '.join(models)}), whose {row.number}s cannot be compared"
        findings.error(path, message, f"list deployments of one model, so that a failover changes no {row.number}")
    if use == "decisions" and len(models) > 1:
        message = (
            f"the deployments have different models ({', '.join(models)}): a failover changes what a threshold means"
        )
        findings.warn(path, message, "list deployments of one model, if apps compare probabilities with thresholds")
    if use == "speech" and len({frozenset(entry.deployment.voices) for entry in entries}) > 1:
        message = "the deployments have different names of `voices`: a failover changes the voice"
        findings.warn(path, message, "give each deployment the same names")


def _check_pins(findings: Findings, entry: RouteEntry, use: Use) -> None:
    """Report a site whose facts are valid only with a field that these requests don't have. They store nothing."""
    pins = sorted(entry.deployment.target.pins.keys() - {"store"})
    if pins:
        site = entry.deployment.site
        fact = f"the facts of the site {site} are valid only with `{pins[0]}`, which {use} do not have"
        findings.error(entry.path, fact, "use a deployment at another site")


def _of_files(deployment: Deployment, *, has_use: bool) -> Iterator[tuple[str, str]]:
    """Yield the warnings about a deployment that gets files, each with its hint."""
    if has_use and "audio" in deployment.excepts:
        message = f"the site {deployment.site} does not keep audio inside the boundary, or has no source for it"
        yield message, "use a deployment at another site"
    if (deployment.audio_bytes or 0) > _MOST_BODY_BYTES:
        message = f"`audio_bytes` of {quoted(deployment.name)} is above the {_MOST_BODY_BYTES} bytes of a body"
        yield message, "write less: the larger files are refused before"
