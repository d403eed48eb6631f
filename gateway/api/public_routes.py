"""FastAPI routes of the public listener."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway.api.caller.authentication import FailedKeyLimiter
from gateway.api.caller.request_headers import headers_of, read_verified_caller, request_id_of
from gateway.api.chat import ChatEndpoint
from gateway.api.dialects.google_paths import METHODS, NOT_OFFERED, VERSIONS, parse_path
from gateway.api.dialects.model_lists import encode_list, encode_model, form_of
from gateway.api.dialects.paths import CHAT_PATH, counter_at, dialect_at
from gateway.api.errors import ApiError
from gateway.api.feature_paths import STATUSES, add_feature_paths
from gateway.api.openapi import complete_document
from gateway.api.path_hints import INPUT_PATHS, OWN_PATHS, hint_for
from gateway.api.raw_responses import Probe, error_response, method_not_allowed
from gateway.execution.failure_observations import asker_of
from gateway.model.assistant import Assistant
from gateway.model.caller import Caller
from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.decision import Refusal, RefusalCode, Refused
from gateway.model.location import ClaimReport, Location
from gateway.model.sampling import is_id_kept
from gateway.model.served import Use
from gateway.operator_errors import ReceiptDamaged
from gateway.policy.caller import explain_token, explain_user, read_consent, user_of
from gateway.policy.doors import PublicPath
from gateway.policy.hand_off import declines
from gateway.policy.location.resolution import locate_user
from gateway.policy.preference import preferred_name, seen_by_intent
from gateway.policy.refusals import not_offered, refuse_location
from gateway.service.assistants import AssistantNotFound, assistants_of, find_assistant
from gateway.service.capabilities import Offer, capabilities, offer_of
from gateway.service.chat_service import ChatService
from gateway.service.disclosure import disclose
from gateway.service.explain import PlainRequest, expect_territory, explain
from gateway.service.location import Located
from providers.failures import InvalidRequest
from providers.territories import TerritoryError
from providers.value import Value

_TAGS = (
    "chat embeddings moderations rerank decisions audio models capabilities explain disclosure receipts usage".split()
)
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_USAGE_GROUPS = frozenset({"day", "region"})
"""A client may see these. Others could show a model that the operator hides."""
_AMOUNTS = frozenset({"amount", "currency", "vendor", "unpriced_calls", "unconverted_calls"})
"""The members of a report of usage that are about its cost."""
NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)
"""FastAPI's own telemetry is off. Environment variables would choose its destination, and only the config may do that:
its exporters have a territory."""
_AssistantName = Annotated[
    str | None, Query(description="The name of an assistant. May be left out if there is only one.")
]
_Intent = Annotated[str | None, Query(description="The intent of the chat. Default: that of `x-gateway-intent`.")]


FindReceipt = Callable[[str, str | None], Awaitable[dict[str, object] | None]]
"""Returns the receipt of a request of a client, signed if there is a key; None if there is no receipt."""
ReportUsage = Callable[[str | None, str | None, tuple[str, ...]], Awaitable[dict[str, object]]]
"""Returns the usage of a client in a month, grouped. Without them, it is all usage, of the current month."""


class StoredSources(Value, frozen=True):
    """The sources of routes in the state directory. Each is None if there is no state directory."""

    receipts: FindReceipt | None = None
    usage: ReportUsage | None = None


def build_routes(
    service: ChatService,
    chat: ChatEndpoint,
    probes: Mapping[str, Probe],
    stored: StoredSources,
    paths: Sequence[PublicPath],
    version: str,
) -> FastAPI:
    """Return the FastAPI application, which includes the chat endpoint, the probes and the paths of features."""
    tags = dict.fromkeys((*_TAGS, *(path.tag for path in paths), "health"))
    # FastAPI's own /docs loads its page from a CDN. This one is served from the package, without a network.
    app = FastAPIOffline(
        title="Assistant gateway",
        version=version,
        summary="One address for every model, routed by region.",
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        openapi_tags=[{"name": name} for name in tags],
    )
    app.router.routes.append(Route(CHAT_PATH, chat, methods=["POST"]))
    dialects = _DialectRoute(chat)
    app.router.routes += [Route(path, dialects, methods=["POST"]) for path in (*OWN_PATHS, *INPUT_PATHS)]
    app.router.routes += [
        Route(f"{version}/models/{{name:path}}:{method}", dialects, methods=["POST"])
        for version in VERSIONS
        for method in (*METHODS, *NOT_OFFERED)
    ]
    app.router.routes += [Route(path, probe) for path, probe in probes.items()]
    _add_models(app, service, chat.limiter)
    _add_capabilities(app, service, chat.limiter)
    _add_explain(app, service, chat.limiter)
    _add_disclosure(app, service, chat.limiter)
    _add_receipts(app, service, stored.receipts, chat.limiter)
    _add_usage(app, service, stored.usage, chat.limiter)
    add_feature_paths(app, paths, service.decider.current)
    add_errors(app, hint_for, service.decider.current)
    _extend_document(app, service.decider.current().demo, paths, service.decider.current)
    return app


class _DialectRoute:
    """The endpoints of the dialects as an ASGI application, for paths that are written differently."""

    def __init__(self, chat: ChatEndpoint) -> None:
        self._chat = chat

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """Answer one request. Raises ApiError for a method of Gemini's API that is not offered."""
        path = scope["path"]
        if (dialect := dialect_at(path, scope.get("query_string", b""))) is not None:
            await self._chat.answer(scope, receive, send, dialect)
        elif (counter := counter_at(path)) is not None:
            await self._chat.count_tokens(scope, receive, send, counter)
        else:
            message = "jobs are not offered, because a vendor keeps their prompts: send each request by itself"
            raise ApiError("not_implemented", message)


async def _identify(request: Request, service: ChatService, limiter: FailedKeyLimiter) -> tuple[ConfigVersion, Caller]:
    """Return the config version and the authenticated caller. From now on every response has the request's id."""
    config = service.decider.current()
    headers = headers_of(request.scope)
    request.state.response_headers = {"x-request-id": request_id_of(headers), "x-gateway-config": config.version}
    return config, await read_verified_caller(config, headers, limiter)


def _add_location_headers(request: Request, location: Location) -> dict[str, str]:
    """Add the caller's location to the headers of every response to this request, and return the headers."""
    headers: dict[str, str] = request.state.response_headers
    request.state.location = location
    headers["x-gateway-why"] = location.why
    if location.region is not None:
        headers["x-gateway-region"] = location.region.name
    return headers


def _add_models(app: FastAPI, service: ChatService, limiter: FailedKeyLimiter) -> None:
    async def identified(request: Request) -> tuple[ConfigVersion, Client | None, Location, dict[str, str]]:
        """Return the config version, the caller's client and location, and the response headers."""
        config, caller = await _identify(request, service, limiter)
        located = await service.decider.locations.locate(config, caller)
        headers = _add_location_headers(request, located.location)
        return config, caller.client, located.check(), headers

    async def models(request: Request) -> JSONResponse:
        form = form_of(request.url.path, dict(request.scope["headers"]))
        config, client, location, headers = await identified(request)
        region = _region_of(location)
        assistants = assistants_of(config, client)
        now_s = service.decider.clock()
        offers = {
            name: found
            for name, assistant in sorted(assistants.items())
            if region.name in assistant.regions and (found := offer_of(config, assistant, location, now_s)) is not None
        }
        return JSONResponse(encode_list(form, offers, request.query_params), headers=headers)

    async def model(request: Request, name: str) -> JSONResponse:
        form = form_of(request.url.path, dict(request.scope["headers"]))
        config, client, location, headers = await identified(request)
        region = _region_of(location)
        if not name:
            raise ApiError("not_found", f"there is no endpoint at this path; {hint_for(request.url.path)}")
        assistant = find_assistant(config, client, name)
        if region.name not in assistant.regions:
            raise Refused(not_offered(assistant, region))
        offer = offer_of(config, assistant, location, service.decider.clock()) or Offer(frozenset())
        return JSONResponse(encode_model(form, name, offer), headers=headers)

    for version in VERSIONS:
        documented = version == "/v1"
        listed = "List the assistants for this caller and its region"
        app.get(f"{version}/models", tags=["models"], summary=listed, include_in_schema=documented)(models)
        # A name may contain a slash, written %2F.
        path = f"{version}/models/{{name:path}}"
        app.get(path, tags=["models"], summary="Get one assistant", include_in_schema=documented)(model)


def _region_of(location: Location) -> Region:
    if location.region is None:
        raise Refused(Refusal(RefusalCode.REGION_UNKNOWN, "no region"))
    return location.region


def _add_capabilities(app: FastAPI, service: ChatService, limiter: FailedKeyLimiter) -> None:
    @app.get("/v1/capabilities", tags=["capabilities"], summary="Get what an app may offer its user here")
    async def capabilities_here(
        request: Request,
        assistant: _AssistantName = None,
        intent: _Intent = None,
        territory: Annotated[
            str | None, Query(description="Another territory, for a key that may assert one, and in a demo.")
        ] = None,
    ) -> JSONResponse:
        config, caller = await _identify(request, service, limiter)
        located = await service.decider.locations.locate(config, caller)
        location = located.location
        if territory is not None:
            location = _asserted_location(config, caller, territory, located.claim)
        headers = _add_location_headers(request, location)
        if location.problem is not None or location.region is None:
            raise Refused(refuse_location(config, location) or Refusal(RefusalCode.REGION_UNKNOWN, "no region"))
        named, _ = seen_by_intent(named_assistant(config, caller.client, assistant), caller, intent, location.age)
        user = user_of(caller, located.claim)
        document = capabilities(config, named, location, service.decider.clock(), caller.accept_language, user)
        return JSONResponse(document, headers=headers)


def _asserted_location(config: ConfigVersion, caller: Caller, territory: str, claim: ClaimReport | None) -> Location:
    """Return the location of the claim's user in this territory. Raises ApiError if the key may not ask for it."""
    client = caller.client
    if not config.demo and (client is None or "territory" not in client.may_assert):
        raise ApiError("permission_denied", "`territory` needs a key that may assert a territory", "territory")
    try:
        expect_territory(territory)
        return locate_user(config, territory, client, claim)
    except TerritoryError as error:
        raise ApiError("invalid_request", str(error), "territory") from None


def _add_explain(app: FastAPI, service: ChatService, limiter: FailedKeyLimiter) -> None:
    @app.get("/v1/explain", tags=["explain"], summary="Explain which deployment would answer this caller, and why")
    async def explain_here(
        request: Request,
        assistant: _AssistantName = None,
        user: Annotated[
            str | None, Query(description="An identifier of the user, which decides the variant of a weighted step.")
        ] = None,
        use: Annotated[Use, Query(description="The kind of the request.")] = "chat",
        intent: _Intent = None,
        prefer: Annotated[str | None, Query(description="The choice that the user would prefer.")] = None,
    ) -> JSONResponse:
        config, caller = await _identify(request, service, limiter)
        located = await service.decider.locations.locate(config, caller)
        named, headers = _named_assistant_at(request, config, caller.client, located, assistant)
        seen, intent_note = seen_by_intent(named, caller, intent, located.location.age)
        if prefer is None and (preferred := caller.values("x-gateway-prefer")):
            prefer = preferred_name(preferred)
        consent, (name, known) = read_consent(config, caller, located.claim), explain_user(caller, located.claim)
        name = name or user
        asking = asker_of(config.has_one_client, caller.client.name if caller.client is not None else None, name)
        health = service.executor.health.snapshot(config, asking)
        asked, now_s = seen.for_use(use), service.decider.clock()
        user_of_plain = name, consent, prefer, declines(caller.values("x-gateway-hand-off"))
        plain = PlainRequest(config, caller.client, located.reports, asked, now_s, health, *user_of_plain)
        explained = explain(plain, reveal_model=named.reveal_model, to_operator=False)
        return JSONResponse({**explained, **explain_token(caller), **known, **intent_note}, headers=headers)


def _add_disclosure(app: FastAPI, service: ChatService, limiter: FailedKeyLimiter) -> None:
    @app.get("/v1/disclosure", tags=["disclosure"], summary="Get the public names and approvals that an app must show")
    async def disclosure(request: Request, assistant: _AssistantName = None, intent: _Intent = None) -> JSONResponse:
        config, caller = await _identify(request, service, limiter)
        located = await service.decider.locations.locate(config, caller)
        named, headers = _named_assistant_at(request, config, caller.client, located, assistant)
        named, _ = seen_by_intent(named, caller, intent, located.location.age)
        health = service.executor.health.snapshot(config)
        plain = PlainRequest(config, caller.client, located.reports, named, service.decider.clock(), health)
        return JSONResponse(disclose(plain, caller.accept_language), headers=headers)


def _add_usage(app: FastAPI, service: ChatService, source: ReportUsage | None, limiter: FailedKeyLimiter) -> None:
    @app.get("/v1/usage", tags=["usage"], summary="Get the tokens and the cost of this client's calls")
    async def usage(
        request: Request,
        month: Annotated[str | None, Query(description="A month, such as 2026-11. Default: the current one.")] = None,
        by: Annotated[str | None, Query(description="Groups: `day`, `region`, or both with a comma.")] = None,
    ) -> JSONResponse:
        _, caller = await _identify(request, service, limiter)
        if source is None:
            raise ApiError("not_found", "this gateway records no usage (GATEWAY_STATE_DIR is not set)")
        if month is not None and _MONTH.fullmatch(month) is None:
            raise ApiError("invalid_request", "`month` must be a month, such as 2026-11", "month")
        groups = tuple(name.strip() for name in by.split(",")) if by else ()
        if not {*groups} <= _USAGE_GROUPS or len({*groups}) < len(groups):
            raise ApiError("invalid_request", "`by` must be `day`, `region`, or both with a comma", "by")
        client = caller.client
        document: object = await source(client.name if client is not None else None, month, groups)
        if client is not None and not client.spending.show_cost:
            document = _without_amounts(document)
        return JSONResponse(document, headers=request.state.response_headers)


def _without_amounts(document: object) -> object:
    """Return a report of usage without what the calls cost."""
    if isinstance(document, list):
        return [_without_amounts(item) for item in document]
    if not isinstance(document, dict):
        return document
    return {name: _without_amounts(value) for name, value in document.items() if name not in _AMOUNTS}


def _add_receipts(app: FastAPI, service: ChatService, receipts: FindReceipt | None, limiter: FailedKeyLimiter) -> None:
    @app.get("/v1/receipts/{id}", tags=["receipts"], summary="Get the signed receipt of a request of this caller")
    async def receipt(request: Request, id: str) -> JSONResponse:
        config, caller = await _identify(request, service, limiter)
        if receipts is None:
            raise ApiError("not_found", "this gateway keeps no receipts (GATEWAY_STATE_DIR is not set)")
        try:
            document = await receipts(id, caller.client.name if caller.client is not None else None)
        except ReceiptDamaged:
            raise ApiError(
                "receipt_damaged",
                "the stored receipt does not match its seal: it was changed after it was stored, or the key of "
                "the seal was lost; ask the operator of the gateway, who has the request's line in the log",
            ) from None
        if document is None:
            message = (
                "this instance has no receipt with this id for this client; a receipt is available within two seconds "
                "after its request has ended, at the instance that answered"
            )
            if not is_id_kept(id, config.receipts.sample):
                message = (
                    "there is no receipt with this id for this client: this gateway keeps the receipts of "
                    f"{config.receipts.sample * 100:g}% of the successful requests, and this id is not among them"
                )
            raise ApiError("not_found", message)
        return JSONResponse(document, headers=request.state.response_headers)


def _named_assistant_at(
    request: Request, config: ConfigVersion, client: Client | None, located: Located, name: str | None
) -> tuple[Assistant, dict[str, str]]:
    """Return the named assistant, and the response headers with the caller's location.

    A caller at a refused location gets that refusal for an unknown name too, as its chat requests do.
    """
    headers = _add_location_headers(request, located.location)
    try:
        return named_assistant(config, client, name), headers
    except AssistantNotFound:
        if located.refusal is not None:
            raise Refused(located.refusal) from None
        raise


def named_assistant(config: ConfigVersion, client: Client | None, name: str | None) -> Assistant:
    """Return the assistant of that name; without a name, the only assistant of this client."""
    names = sorted({assistant.name for assistant in assistants_of(config, client).values()})
    if name is None and len(names) != 1:
        message = f"the parameter `assistant` is missing: send one of {', '.join(names)}"
        raise ApiError("invalid_request", message, "assistant")
    return find_assistant(config, client, name if name is not None else names[0], "assistant")


def add_errors(
    app: FastAPI, hint: Callable[[str], str], current: Callable[[], ConfigVersion | None] = lambda: None
) -> None:
    """Return every error of the application in OpenAI's envelope, with a hint for a path that does not exist."""

    def respond(request: Request, error: Exception) -> Response:
        answer = error_response(request.scope, error, current())
        # Requests to the admin listener have no location, and so none of these headers.
        headers = {**request.scope.get("state", {}).get("response_headers", {}), **answer.headers}
        return Response(answer.body, answer.status, headers, answer.kind)

    async def on_domain(request: Request, error: Exception) -> Response:
        return respond(request, error)

    async def on_http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        # To the router, an unknown method of Gemini's API is a name of an assistant, whose entry can only be read.
        is_unknown_method = request.method == "POST" and parse_path(request.url.path) is not None
        if status == 405 and not is_unknown_method:
            allowed = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
            return respond(request, method_not_allowed(request.method, allowed))
        if status in (404, 405):
            message = f"there is no endpoint at this path; {hint(request.url.path)}"
            return respond(request, ApiError("not_found", message))
        return respond(request, ApiError("invalid_request", str(getattr(error, "detail", error))))

    async def on_validation(request: Request, error: Exception) -> Response:
        first: Any = error.errors()[0] if isinstance(error, RequestValidationError) else {}
        param = ".".join(str(part) for part in first.get("loc", ())[1:]) or None
        return respond(request, ApiError("invalid_request", _validation_message(first, param), param))

    for known in (ApiError, AssistantNotFound, Refused, InvalidRequest, Exception):
        app.add_exception_handler(known, on_domain)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)


def _validation_message(problem: Mapping[str, Any], param: str | None) -> str:
    """Return the message for a parameter that FastAPI refuses."""
    match problem.get("type"):
        case "missing":
            return f"`{param}` is missing"
        case "literal_error":
            return f"`{param}` must be {problem['ctx']['expected']}"
        case "string_pattern_mismatch":  # only months have a pattern
            return f"`{param}` must be a month, such as 2026-11"
        case _:
            return f"`{param}` has a value that is not allowed" if param else "the request is not valid"


def _extend_document(
    app: FastAPI, is_demo: bool, paths: Sequence[PublicPath], current: Callable[[], ConfigVersion]
) -> None:
    """Add to the OpenAPI document what FastAPI does not know. It has the paths of a feature while its part is there."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        if CHAT_PATH not in document["paths"]:
            complete_document(document, is_demo=is_demo, statuses={one.path: STATUSES[one.method] for one in paths})
        absent = {one.path for one in paths if current().parts.of(one.part) is None}
        return {**document, "paths": {path: it for path, it in document["paths"].items() if path not in absent}}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
