"""In words, how a deployment would leave a region's boundary, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.problems import quoted
from gateway.model.deployment import Deployment
from gateway.model.table import Region

__all__ = ["mend", "outside"]


def outside(region: Region, deployment: Deployment) -> str:
    """How a deployment leaves the boundary of a region."""
    stores, processes = deployment.residency.stores, deployment.residency.processes
    does = {} if stores.within(region.boundary) else {"stores": str(stores)}
    does |= {} if processes.within(region.boundary) else {"processes": str(processes)}
    what = f"{' and '.join(does)} in {' and '.join(dict.fromkeys(does.values()))}"
    return f"{quoted(deployment.name)} {what}, outside the boundary of region {quoted(region.name)} ({region.boundary})"


def mend(region: Region, deployments: Mapping[str, Deployment]) -> str:
    """What could be done about it."""
    fitting = [name for name, other in deployments.items() if other.residency.within(region.boundary)]
    if fitting:
        return f"take one that stays inside: {', '.join(fitting[:4])}"
    return f"take a site inside the boundary, or widen `regions.{region.name}.boundary`"
