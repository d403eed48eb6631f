"""The answers of the admin API about clients: actions on them, their keys, budgets and users, and reports of usage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from itertools import islice
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import Response, StreamingResponse

from gateway.api.admin_request import AdminRequest, Asked, texts_of
from gateway.api.errors import ApiError
from gateway.api.openapi import json_body
from gateway.config.problems import choice_hint, quoted
from gateway.installation import counted_regions, duty_sums, usage_reader
from gateway.model.status import ROWS_DELETED_HEADER, Status
from gateway.model.stored_client import Role
from gateway.service.admin_operations import Operation
from gateway.service.client_admin import ClientAdmin, Json
from gateway.usage.duty_counts import Period, report_rows
from gateway.usage.reports import DIMENSIONS, UsageQuery, UsageReader
from gateway.usage.usage_row import json_line

_MONTH = r"^[0-9]{4}-(0[1-9]|1[0-2])$"
_ROWS_AT_ONCE = 500
_Month = Annotated[str | None, Query(pattern=_MONTH)]
_Assistant = Annotated[
    str | None, Query(description="only the calls for this assistant; empty: only those without one")
]
_FirstDay = Annotated[date | None, Query(alias="from", description="the first day, in place of `month`")]
_LastDay = Annotated[date | None, Query(alias="to", description="the last day, in place of `month`")]


def answer_to(operation: Operation) -> Callable[..., Awaitable[Response]]:
    """Return the function that answers the requests for an action."""

    async def answer(asked: Asked) -> Response:
        given = await _given(asked, operation)
        if operation.shows_file:
            return await asked.show(operation.command, lambda admin: operation.run(admin, given))
        if operation.group == "budgets" and given.get("user") is not None:
            asked.expect_admin("a budget of an end user")
        status = await asked.control.status() if operation.uses_config else None
        config = status.config if status is not None else None

        def run(admin: ClientAdmin) -> Json:
            found = operation.run(operation.on(admin, config), given)
            return _with_vendors(found, status) if operation.group == "quotas" and status is not None else found

        return await asked.run(operation.command, run)

    answer.__name__ = operation.command.replace(" ", "_").replace("-", "_")
    answer.__doc__ = operation.about[0].upper() + operation.about[1:]
    return answer


def _with_vendors(found: Json, status: Status) -> Json:
    """Return the quotas with what their vendors stated last."""
    uses = {(it.name, it.unit, it.window): status.vendor_limit(it) for it in status.quotas}
    quotas = found["quotas"]
    for one in quotas if isinstance(quotas, list) else ():
        stated = uses.get((one["name"], one["unit"], one["window"]))
        one["vendor"] = stated.data() if stated is not None else None
    return found


async def _given(asked: AdminRequest, operation: Operation) -> dict[str, Any]:
    """Return the fields of a request: in its path, its query or its body. Raises ApiError."""
    given: dict[str, Any] = dict(asked.request.path_params)
    if operation.method == "GET":
        return {**{it.name: asked.request.query_params.get(it.name) for it in operation.fields}, **given}
    body = await asked.body() if operation.method != "DELETE" else {}
    fields = [it for it in operation.fields if it.name not in given]
    texts = {it.name: body.pop(it.name, None) for it in fields} if operation.definition else body
    for it in fields:
        value = texts.get(it.name)
        if it.is_number_too and isinstance(value, int) and not isinstance(value, bool):
            texts[it.name] = str(value)
        if it.required and it.name != "per" and not isinstance(texts.get(it.name), str):
            problem = "is missing" if value is None else "must be a string"
            raise ApiError("invalid_request", f"`{it.name}` {problem}: {it.about}", it.name)
    given |= texts_of(texts, *(it.name for it in fields))
    for it in fields:
        if it.choices and it.name != "per" and given.get(it.name) not in it.choices:
            raise ApiError("invalid_request", f"`{it.name}` must be one of {', '.join(it.choices)}", it.name)
    if operation.definition:
        is_new = operation.method == "POST"
        given["definition"] = {name: value for name, value in body.items() if value is not None or not is_new}
    return given


def described(operation: Operation) -> dict[str, Any]:
    """Return the parameters and the body of an action for the OpenAPI document."""
    places = {name: "path" for name in ("id", "name") if f"{{{name}}}" in operation.path}
    if operation.method == "GET":
        places = {it.name: places.get(it.name, "query") for it in operation.fields}
    parameters = [
        {
            "name": it.name,
            "in": places[it.name],
            "required": places[it.name] == "path",
            "description": it.about,
            "schema": {"type": "string"},
        }
        for it in operation.fields
        if it.name in places
    ]
    inside = [it for it in operation.fields if it.name not in places]
    has_body = operation.method in ("POST", "PATCH") and (inside or operation.definition)
    body = json_body({it.name: it.about for it in inside}, *(it.name for it in inside if it.required))
    return {"parameters": parameters, **(body if has_body else {})}


async def report_usage(
    asked: Asked,
    by: Annotated[str, Query(description=", ".join(DIMENSIONS))] = "client",
    month: _Month = None,
    client: Annotated[str | None, Query()] = None,
    assistant: _Assistant = None,
    first: _FirstDay = None,
    last: _LastDay = None,
) -> Response:
    """Report a month or days, in the form of `gateway usage --json`, with the period and `timezone`"""
    names = tuple(name.strip() for name in by.split(","))
    if not set(names) <= set(DIMENSIONS) or len(set(names)) < len(names):
        raise ApiError("invalid_request", f"`by` has one or several of {', '.join(DIMENSIONS)}", "by")
    if "user" in names:
        asked.expect_admin("a report by end user")
    days = _days(month, first, last)
    config = (await asked.control.status()).config

    def report(admin: ClientAdmin) -> Json:
        with usage_reader(config.stores, admin.directory) as reader:
            query, period = reader.period_query(month, days, names, client, assistant)
            return {**reader.report_data(query, config), **period}

    return await asked.run("usage", report)


async def send_rows(
    asked: Asked,
    month: _Month = None,
    client: Annotated[str | None, Query()] = None,
    assistant: _Assistant = None,
    request_id: Annotated[str | None, Query(description="only the calls of this request, of any month")] = None,
    first: _FirstDay = None,
    last: _LastDay = None,
) -> Response:
    """Send the rows of a month or of days, oldest first, as the JSON lines of `gateway usage --rows --json`"""
    days = _days(month, first, last)
    stores = (await asked.control.status()).config.stores
    shows_users = asked.role is Role.ADMIN

    def send(admin: ClientAdmin) -> Response:
        reader = usage_reader(stores, admin.directory)
        query = (
            reader.period_query(month, days, (), client, assistant)[0]
            if request_id is None
            else UsageQuery.of_request(request_id)
        )
        deleted = reader.deleted_through_in(query)
        return StreamingResponse(
            _row_lines(reader, query, shows_users=shows_users),
            headers={ROWS_DELETED_HEADER: deleted} if deleted is not None else {},
            media_type="application/x-ndjson",
        )

    return await asked.run("usage", send)


async def report_duties(
    asked: Asked,
    first: Annotated[str, Query(alias="from", pattern=_MONTH, description="the first month, such as `2027-01`")],
    last: Annotated[str, Query(alias="to", pattern=_MONTH, description="the last month")],
    region: Annotated[str | None, Query(description="only this region")] = None,
    by: Annotated[Period, Query(description="the period of a row")] = "month",
    least: Annotated[int, Query(ge=0, description="show a smaller count above 0 as `<` and this number")] = 0,
) -> Response:
    """Report what was done for duties of time and crisis, in the form of `gateway duties report --json`"""
    if last < first:
        raise ApiError("invalid_request", "`to` is before `from`: name the first month in `from`", "to")
    config = (await asked.control.status()).config

    def report(admin: ClientAdmin) -> Json:
        rows = report_rows(duty_sums(config.stores, admin.directory, (first, last)), by, region, least)
        if region is not None and not rows and region not in config.regions:
            known = config.regions.keys() | counted_regions(config.stores, admin.directory)
            if region not in known:
                message = f"unknown region {quoted(region)}; {choice_hint(region, known)}"
                raise ApiError("invalid_request", message, "region")
        return {"object": "duties.report", "rows": rows}

    return await asked.run("duties", report)


def _days(month: str | None, first: date | None, last: date | None) -> tuple[date, date] | None:
    """Return the days that replace a month, or None. Raises ApiError."""
    if first is None and last is None:
        return None
    if first is None or last is None or month is not None:
        raise ApiError("invalid_request", "name a `month`, or the days `from` and `to`")
    if first > last:
        raise ApiError("invalid_request", f"`from` ({first}) is after `to` ({last}): exchange them", "from")
    return first, last


def _row_lines(reader: UsageReader, query: UsageQuery, *, shows_users: bool) -> Iterator[bytes]:
    """Yield rows as JSON lines, many in one piece."""
    with reader:
        rows = reader.rows(query)
        while lines := [json_line(row, shows_user=shows_users) for row in islice(rows, _ROWS_AT_ONCE)]:
            yield "".join(lines).encode()
