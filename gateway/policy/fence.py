"""The fence: create the permit to send a prompt to a deployment. No other module creates one.

The compiler rejects every route that leaves the boundary of its region. The fence checks the boundary again for each
request. It also checks approvals, which may expire while the gateway is serving, and whether the vendor answers with a
model elsewhere by now. Execution needs a permit to open a connection, so every path to a provider passes this check.
"""

from __future__ import annotations

from gateway.model.approval import days_at
from gateway.model.config_version import ConfigVersion, Region, remember
from gateway.model.deployment import Deployment
from gateway.model.permit import Permit
from gateway.model.wrapper import InClear, Wrapper, joined
from providers.value import replace


def prompt_permit(
    config: ConfigVersion, region: Region, deployment: Deployment, now_s: float, behind: Wrapper | None = None
) -> Permit | None:
    """Return the permit to send prompts of this region to the deployment at `now_s` (Unix time), or None.

    There is no permit if the deployment is outside the boundary, or its vendor answers elsewhere, or an approval that
    the region requires is missing. `behind`: the rules of the barrier that is open for them.
    """
    permit = evaluation_permit(config, region, deployment, now_s, behind)
    return permit if permit is not None and permit.waives is None else None


def evaluation_permit(
    config: ConfigVersion, region: Region, deployment: Deployment, now_s: float, behind: Wrapper | None = None
) -> Permit | None:
    """Return the permit for an evaluation or a judge, or None if the deployment is outside the boundary or leaves.

    A missing approval is waived and recorded in the permit: the questions of an evaluation are not a user's, and a
    judge of moderation answers no user.
    """
    if not is_inside(config, region, deployment) or answers_elsewhere(deployment, now_s) is not None:
        return None
    waives = lacking_approval(region, deployment, now_s)
    site, model = deployment.site, deployment.model
    proxy = deployment.proxy_origin
    wrapper = wrapper_of(config, region, deployment, behind)
    return Permit(deployment.origin, region.name, deployment.name, site, model, config.version, waives, proxy, wrapper)


def wrapper_of(
    config: ConfigVersion, region: Region, deployment: Deployment, behind: Wrapper | None = None
) -> Wrapper | None:
    """Return the rules of all that requests of the region send to the deployment, or None if it gets the values."""
    if not region.parts.every and not deployment.parts.every:
        return behind
    of_barrier = (behind.key, behind.names) if behind is not None else ()
    key = (wrapper_of.__name__, region.name, deployment.name, of_barrier)
    return remember(config, key, lambda: wrapper_of_step(region, deployment, behind))


def wrapper_of_step(region: Region, deployment: Deployment, behind: Wrapper | None = None) -> Wrapper | None:
    """Return the union of the rules of a region, of a deployment, and of the barrier before it."""
    of_region = None if deployment.parts.of(InClear) is not None else region.parts.of(Wrapper)
    return joined(joined(of_region, deployment.parts.of(Wrapper)), behind)


def wrapping_too(permit: Permit, wrapper: Wrapper | None) -> Permit:
    """Return the permit with further rules, of a version of the configuration that allowed the prompt before."""
    return permit if wrapper is None else replace(permit, wrapper=joined(permit.wrapper, wrapper))


def is_inside(config: ConfigVersion, region: Region, deployment: Deployment) -> bool:
    """Return whether the deployment keeps the region's prompts inside the boundary, and its proxy is inside too.

    In a demo and in a rehearsal it must also be simulated, unless the command that started the demo added it.
    """
    may_be_real = not (config.demo or config.simulated)
    may_be_called = may_be_real or deployment.simulates is not None or deployment.name in config.real
    return may_be_called and deployment.within(region.boundary)


def answers_elsewhere(deployment: Deployment, now_s: float, *, reveal_model: bool = True) -> str | None:
    """Return in words that another model may answer, which stores or computes elsewhere; None if that is not so.

    A redirect by a vendor must not move a prompt to another place, whichever region it is from.
    """
    leaving = deployment.leaving
    if leaving is None or leaving.acts_s is None or now_s < leaving.acts_s:
        return None
    return f"{leaving.to if reveal_model else 'another model'} is computed elsewhere, and may answer since {leaving.on}"


def lacking_approval(region: Region, deployment: Deployment, now_s: float, *, reveal_model: bool = True) -> str | None:
    """Return which approval is missing, or None if the region requires none or the deployment has a valid one."""
    if not region.approvals_required:
        return None
    return deployment.why_unapproved(region.name, days_at(now_s), reveal_model=reveal_model)


def judge_still_permitted(permit: Permit, current: ConfigVersion, now_s: float) -> str | None:
    """Return why the current config version does not allow this permit of a judge any more, or None if it does."""
    deployment, region = current.deployments.get(permit.deployment), current.regions.get(permit.region)
    if deployment is None or region is None:
        return "the current config does not have it"
    if not deployment.enabled:
        return "disabled in the current config"
    renewed = evaluation_permit(current, region, deployment, now_s)
    # Sites at one host may differ in what they pin, and an attempt keeps the site of its plan.
    if renewed is None or renewed.destination != permit.destination:
        return "the current config no longer permits it"
    needed, wrapper = renewed.wrapper, permit.wrapper
    is_kept = needed is None or (wrapper is not None and wrapper.covers(needed))
    return None if is_kept else "the current config redacts what it gets"
