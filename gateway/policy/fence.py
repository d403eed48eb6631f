"""The fence: the only place where a permit to send a prompt somewhere is made.

The compiler has already refused every route that leaves its region's boundary. This check is made again for each
request all the same, and that of approvals, which end while we serve, is made here alone: a permit is the one thing
that execution needs to open a connection, so that no path to a provider exists that was not judged here.
"""

from __future__ import annotations

from gateway.model.approval import days_at, why_unapproved
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment
from gateway.model.permit import Permit
from gateway.model.route import deployments_of


def prompt_permit(table: ConfigVersion, region: Region, deployment: Deployment, now_s: float) -> Permit | None:
    """The permit to send this region's prompts to the deployment now (Unix time); None if that would leave the
    boundary, or if the region requires an approval that the deployment doesn't have now."""
    permit = evaluation_permit(table, region, deployment, now_s)
    return permit if permit is not None and permit.waives is None else None


def evaluation_permit(table: ConfigVersion, region: Region, deployment: Deployment, now_s: float) -> Permit | None:
    """The permit to ask the deployment the questions of an evaluation, as this region would: None if that would leave
    the boundary. A missing approval is waived, and the permit says so: nobody's prompt travels under it."""
    if not is_inside(table, region, deployment):
        return None
    waives = lacking_approval(region, deployment, now_s)
    site, model = deployment.site, deployment.model
    return Permit(deployment.origin, region.name, deployment.name, site, model, table.version, waives)


def is_inside(table: ConfigVersion, region: Region, deployment: Deployment) -> bool:
    """Whether the deployment keeps the region's prompts within the boundary, and in a demo on this machine."""
    return deployment.residency.within(region.boundary) and (not table.demo or deployment.simulates is not None)


def lacking_approval(region: Region, deployment: Deployment, now_s: float) -> str | None:
    """None if the region asks for no approval, or the deployment has one that counts now; else what is missing."""
    if not region.approvals_required:
        return None
    return why_unapproved(deployment.approvals, region.name, days_at(now_s))


def still_permitted(permit: Permit, current: ConfigVersion, assistant: str, now_s: float) -> str | None:
    """None if the current table still lets this permit be used now, else why not.

    A request plans by the table that it began with; a new attempt must be allowed by the current one too, so that
    a kill switch or a narrowed boundary takes effect in the middle of a retry. An approval may end there too, with no
    change of the table.
    """
    if permit.table == current.version:
        return lacking_approval(current.regions[permit.region], current.deployments[permit.deployment], now_s)
    deployment = current.deployments.get(permit.deployment)
    region = current.regions.get(permit.region)
    route = current.assistants[assistant].routes if assistant in current.assistants else {}
    if deployment is None or region is None or deployment not in deployments_of(route.get(permit.region, ())):
        return "the current config doesn't route there any more"
    if not deployment.enabled:
        return "disabled in the current config"
    if (lacking := lacking_approval(region, deployment, now_s)) is not None:
        return lacking
    renewed = prompt_permit(current, region, deployment, now_s)
    # Sites at one host differ in what they pin, and an attempt is made as it was planned.
    if renewed is None or (renewed.origin, renewed.site, renewed.model) != (permit.origin, permit.site, permit.model):
        return "the current config doesn't permit it any more"
    return None
