"""The view Changes: the active version, its history, differences, the plan of a text, and running schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gateway.console.admin_call import AdminFailed
from gateway.console.texts import WORDS, _
from gateway.console.views import ConsoleView, ViewAnswer, Visit, back_to
from gateway.model.stored_client import Role
from providers.value import replace

PATH = "/changes"
_LIMIT = "50"
NOTICES: Mapping[str, str] = WORDS["changes"]


async def show(visit: Visit) -> ViewAnswer:
    """Show the history and the schedules; with `before` and `after` also their differences."""
    return await _page(visit, await _differences(visit))


async def _differences(visit: Visit) -> dict[str, Any]:
    before, after = visit.query.get("before", ""), visit.query.get("after", "")
    if not (before and after):
        return {}
    try:
        return {"difference": await visit.admin.get("/v1/admin/diff", before=before, after=after)}
    except AdminFailed as failed:
        if failed.status >= 500:
            raise
        return {"problem": str(failed)}


async def _page(visit: Visit, more: dict[str, Any], status: int = 200) -> ViewAnswer:
    history, ready = await asyncio.gather(
        visit.admin.get("/v1/admin/history", limit=_LIMIT), visit.admin.get("/readyz")
    )
    values = {
        "history": history,
        "ready": ready,
        "schedules": ready["schedules"],
        "notice": NOTICES.get(visit.query.get("done", "")),
        "difference": None,
        "problem": "",
        "plan": None,
        "text": "",
        "before": visit.query.get("before", ""),
        "after": visit.query.get("after", ""),
    }
    return ViewAnswer("changes.html", values | more, status)


async def plan(visit: Visit) -> ViewAnswer:
    """Show what the pasted or uploaded text would change."""
    text = visit.form.get("file") or visit.form.get("text", "")
    try:
        planned = await visit.admin.call("POST", "/v1/admin/plan", {"text": text})
    except AdminFailed as failed:
        if failed.status >= 500:
            raise
        return await _page(visit, {"problem": str(failed), "text": text}, failed.status)
    return await _page(visit, {"plan": planned, "text": text})


async def roll_back(visit: Visit) -> ViewAnswer:
    """Activate and pin an earlier version, after a confirmation."""
    version = visit.form.get("version", "")
    question = visit.texts.gettext(
        _("Roll back to version {version}? It replaces the config file until it is released.")
    )
    if visit.form.get("confirmed") != "yes":
        confirmation = _confirm(visit, question.format(version=version), _("Roll back"), "rollback", version=version)
        return replace(confirmation, values=confirmation.values | {"plan": await _effect(visit, version)})
    return await _switched(visit, "/rollback", {"version": version}, "rollback")


async def _effect(visit: Visit, version: str) -> Any:
    """Return what a change from the active version to this one does; None if it can't be computed."""
    try:
        active = (await visit.admin.get("/readyz"))["config_version"]["version"]
        return (await visit.admin.get("/v1/admin/diff", before=active, after=version))["plan"]
    except AdminFailed:
        return None  # the rollback itself names the mistake


async def release(visit: Visit) -> ViewAnswer:
    """Activate the config file in place of the pinned version, after a confirmation."""
    question = visit.texts.gettext(_("Release the pinned version? The config file becomes active."))
    if visit.form.get("confirmed") != "yes":
        return _confirm(visit, question, _("Release"), "release")
    return await _switched(visit, "/rollback", {"release": True}, "release")


async def reload(visit: Visit) -> ViewAnswer:
    """Load the config file now."""
    return await _switched(visit, "/reload", {}, "reload")


async def stop(visit: Visit) -> ViewAnswer:
    """Stop a schedule, after a confirmation."""
    given = {name: visit.form.get(name, "") for name in ("assistant", "region")}
    question = visit.texts.gettext(_("Stop the schedule of {assistant} in {region}? Its candidate gets no more users."))
    if visit.form.get("confirmed") != "yes":
        return _confirm(visit, question.format(**given), _("Stop the schedule"), "schedules/stop", **given)
    await visit.admin.call("POST", "/v1/admin/schedules/stop", given)
    return back_to(PATH, done="stop")


def _confirm(visit: Visit, question: str, button: str, action: str, **fields: str) -> ViewAnswer:
    has_signature = action in ("rollback", "release")
    values = {"question": question, "button": button, "action": f"{PATH}/{action}", "fields": fields}
    return ViewAnswer("confirm.html", values | {"back": PATH, "has_signature": has_signature})


async def _switched(visit: Visit, path: str, wanted: Mapping[str, object], word: str) -> ViewAnswer:
    """Do an action on the version, with the signature if one was typed. Show its notice or its problems."""
    signature = visit.form.get("signature", "").strip()
    done = await visit.admin.call("POST", path, {**wanted, **({"signature": signature} if signature else {})})
    if done["result"] != "activated":
        problems = [finding["message"] for finding in done["findings"] if finding["severity"] == "error"]
        own = "; ".join(problems) or visit.texts.gettext(_("Nothing was changed."))
        return await _page(visit, {"problem": visit.texts.code("change", done["refused_by"], own)}, 422)
    return back_to(PATH, done=f"{word}-{done['scope']}")


VIEW = ConsoleView(
    PATH,
    _("Changes"),
    show,
    {
        f"{PATH}/plan": (Role.VIEWER, plan),
        f"{PATH}/rollback": (Role.OPERATOR, roll_back),
        f"{PATH}/release": (Role.OPERATOR, release),
        f"{PATH}/reload": (Role.OPERATOR, reload),
        f"{PATH}/schedules/stop": (Role.OPERATOR, stop),
    },
)
