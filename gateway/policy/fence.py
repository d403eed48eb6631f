"""The fence: the only place where a permit to send a prompt somewhere is made.

The compiler has already refused every route that leaves its region's boundary. This check is made again for each
request all the same: a permit is the one thing that execution needs to open a connection, so that no path to a
provider exists that was not judged here.
"""

from __future__ import annotations

from gateway.model.permit import Permit
from gateway.model.table import Deployment, Region, Table

__all__ = ["prompt_permit", "still_permitted"]


def prompt_permit(table: Table, region: Region, deployment: Deployment) -> Permit | None:
    """The permit to send this region's prompts to the deployment; None if that would leave the boundary."""
    if not deployment.residency.within(region.boundary):
        return None
    if table.demo and deployment.simulates is None:
        return None
    return Permit(deployment.origin, region.name, deployment.name, deployment.site, deployment.model, table.version)


def still_permitted(permit: Permit, current: Table, assistant: str) -> str | None:
    """None if the current table still lets this permit be used, else why not.

    A request plans by the table that it began with; a new attempt must be allowed by the current one too, so that
    a kill switch or a narrowed boundary takes effect in the middle of a retry.
    """
    if permit.table == current.version:
        return None
    deployment = current.deployments.get(permit.deployment)
    region = current.regions.get(permit.region)
    route = current.assistants[assistant].routes if assistant in current.assistants else {}
    if deployment is None or region is None or deployment not in route.get(permit.region, ()):
        return "the current config doesn't route there any more"
    if not deployment.enabled:
        return "disabled in the current config"
    renewed = prompt_permit(current, region, deployment)
    if renewed is None or renewed.origin != permit.origin or renewed.model != permit.model:
        return "the current config doesn't permit it any more"
    return None
