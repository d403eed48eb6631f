"""FastAPI routes of the public listener, and the hint in a 404 response."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway.api.caller.authentication import FailedKeyLimiter
from gateway.api.caller.request_headers import headers_of, read_caller, request_id_of
from gateway.api.chat import CHAT_PATH, ChatEndpoint
from gateway.api.errors import ApiError
from gateway.api.openapi import CHAT_OPERATION, COMPONENTS, DEMO_PLACE, HEALTH_OPERATIONS, RESPONSES, SECURITY
from gateway.api.raw_responses import Probe, error_response, method_not_allowed
from gateway.model.caller import Caller
from gateway.model.config_version import Assistant, Client, ConfigVersion, Region
from gateway.model.decision import Refusal, RefusalCode, Refused
from gateway.model.location import Location
from gateway.policy.caller import consent_said, explain_user
from gateway.policy.refusals import not_offered
from gateway.service.assistants import AssistantNotFound, assistants_of, find_assistant, not_found
from gateway.service.chat_service import ChatService
from gateway.service.disclosure import disclose
from gateway.service.explain import PlainRequest, explain
from gateway.service.location import Located
from providers.failures import InvalidRequest

_CHAT = "POST /v1/chat/completions"


_PATHS = (
    ("/chat/completions", _CHAT),
    ("/models", "GET /v1/models"),
    ("/explain", "GET /v1/explain"),
    ("/disclosure", "GET /v1/disclosure"),
    ("/healthz", "GET /healthz"),
    ("/readyz", "GET /readyz"),
    ("/docs", "GET /docs"),
)


# What other gateways and Kubernetes' own servers call these, and people put into the probes of a deployment.
_PROBES = {
    "/health/liveliness": "GET /healthz",
    "/health/liveness": "GET /healthz",
    "/health/live": "GET /healthz",
    "/livez": "GET /healthz",
    "/live": "GET /healthz",
    "/ping": "GET /healthz",
    "/status": "GET /healthz",
    "/health/readiness": "GET /readyz",
    "/health/ready": "GET /readyz",
    "/ready": "GET /readyz",
}


_ADMIN = frozenset({"/metrics", "/reload", "/config/reload", "/rollback"})


_THERE_ARE = f"there are {_CHAT}, GET /v1/models, /v1/explain, /v1/disclosure, /v1/receipts and /docs"


# OpenAI's further endpoints, Anthropic's, and those that other gateways have.
_OTHER_APIS = frozenset(
    "completions embeddings messages audio images videos files uploads batches moderations assistants threads"
    " fine_tuning vector_stores realtime conversations rerank".split()
)


_SLASHES = re.compile(r"//+")


def hint_for(path: str) -> str:
    """What there is instead of the path; nothing of it is quoted back."""
    plain = _SLASHES.sub("/", path.lower()).rstrip("/")
    # Behind the last `/v1`: people put such a path behind one of another gateway's, or behind ours.
    called = plain.rpartition("/v1/")[2].removeprefix("/").partition("/")[0]
    if called == "responses":
        return f"OpenAI's Responses API is not spoken here: let your client use chat completions, {_CHAT}"
    if (probe := _PROBES.get(plain)) is not None:
        return f"did you mean {probe}?"
    if plain in _ADMIN:
        return "metrics, reload and rollback are on the admin listener (GATEWAY_ADMIN_HOST, GATEWAY_ADMIN_PORT)"
    for ending, meant in _PATHS:
        if plain.endswith(ending):
            return f"did you mean {meant}? The base URL of OpenAI's clients ends in /v1, without a slash behind a path"
    if called in _OTHER_APIS:
        return f"this API is not spoken here: the gateway answers chats only, {_CHAT}"
    return _THERE_ARE


NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)
"""FastAPI's own telemetry is off: environment variables would choose where it goes, which is the config's to say, as an
exporter with a place."""


# No assistant has a birthday: one number, the same at every worker and after every start (2026-11-20, UTC).
_CREATED = 1_795_132_800


_AssistantName = Annotated[str | None, Query(description="A name; the only assistant, if there is one.")]


def build_routes(
    service: ChatService, chat: ChatEndpoint, probes: Mapping[str, Probe], receipts: ReceiptSource | None, version: str
) -> FastAPI:
    """The FastAPI application; the chat endpoint and the probes stand in it as they are."""
    # FastAPI's own /docs loads its page from a CDN: here it is served from the package, with no network.
    app = FastAPIOffline(
        title="Assistant gateway",
        version=version,
        summary="One chat endpoint, answered by region.",
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        openapi_tags=[{"name": name} for name in ("chat", "models", "explain", "disclosure", "receipts", "health")],
    )
    app.router.routes.append(Route(CHAT_PATH, chat, methods=["POST"]))
    app.router.routes += [Route(path, probe) for path, probe in probes.items()]
    _add_models(app, service, chat.limiter)
    _add_explain(app, service, chat.limiter)
    _add_disclosure(app, service, chat.limiter)
    _add_receipts(app, service, receipts, chat.limiter)
    add_errors(app, hint_for, lambda: service.current().blocked_by)
    _document(app, service.current().demo)
    return app


def _visit(request: Request, service: ChatService, limiter: FailedKeyLimiter) -> tuple[ConfigVersion, Caller]:
    table = service.current()
    headers = headers_of(request.scope)
    request.state.told = {"x-request-id": request_id_of(headers), "x-gateway-table": table.version}
    return table, read_caller(table, headers, limiter)


def _tell_place(request: Request, location: Location) -> dict[str, str]:
    """From here on every answer to this request says where its caller is taken to be; its headers."""
    told: dict[str, str] = request.state.told
    told["x-gateway-why"] = location.why
    if location.region is not None:
        told["x-gateway-region"] = location.region.name
    return told


def _add_models(app: FastAPI, service: ChatService, limiter: FailedKeyLimiter) -> None:
    def entry(name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": _CREATED, "owned_by": "gateway"}

    async def asked(request: Request) -> tuple[dict[str, Assistant], Region, dict[str, str]]:
        """What this caller may ask by every name that works, where it is, and the headers that say so."""
        table, caller = _visit(request, service, limiter)
        found = await service.locations.locate(table, caller)
        told = _tell_place(request, found.location)
        region = found.check().region
        if region is None:
            raise Refused(Refusal(RefusalCode.REGION_UNKNOWN, "no region"))
        return assistants_of(table, caller.client), region, told

    @app.get("/v1/models", tags=["models"], summary="The assistants that this caller can ask, where it is")
    async def models(request: Request) -> JSONResponse:
        assistants, region, told = await asked(request)
        offered = [entry(name) for name, assistant in sorted(assistants.items()) if region.name in assistant.routes]
        return JSONResponse({"object": "list", "data": offered}, headers=told)

    # An id may hold what would otherwise end it, such as a slash, written %2F.
    @app.get("/v1/models/{name:path}", tags=["models"], summary="One of them")
    async def model(request: Request, name: str) -> JSONResponse:
        assistants, region, told = await asked(request)
        if not name:
            raise ApiError("not_found", f"there is nothing at this path; {hint_for(request.url.path)}")
        if name not in assistants:
            raise not_found(name, assistants)
        if region.name not in assistants[name].routes:
            raise Refused(not_offered(assistants[name], region))
        return JSONResponse(entry(name), headers=told)


def _add_explain(app: FastAPI, service: ChatService, limiter: FailedKeyLimiter) -> None:
    @app.get("/v1/explain", tags=["explain"], summary="Who would answer this caller, and why")
    async def explain_here(
        request: Request,
        assistant: _AssistantName = None,
        user: Annotated[
            str | None, Query(description="Who the person is: decides their side of a weighted step.")
        ] = None,
    ) -> JSONResponse:
        table, caller = _visit(request, service, limiter)
        located = await service.locations.locate(table, caller)
        found, told = _asked_about(request, table, caller.client, located, assistant)
        health = service.executor.health.snapshot(table)
        said, (name, known) = consent_said(table, caller, located.claim), explain_user(caller, located.claim)
        asked = PlainRequest(table, caller.client, located.reports, found, service.clock(), health, name or user, said)
        explained = explain(asked, reveal_model=found.reveal_model, to_operator=False)
        return JSONResponse({**explained, **known}, headers=told)


def _add_disclosure(app: FastAPI, service: ChatService, limiter: FailedKeyLimiter) -> None:
    @app.get("/v1/disclosure", tags=["disclosure"], summary="The public names and numbers that an app must show")
    async def disclosure(
        request: Request,
        assistant: _AssistantName = None,
    ) -> JSONResponse:
        table, caller = _visit(request, service, limiter)
        located = await service.locations.locate(table, caller)
        found, told = _asked_about(request, table, caller.client, located, assistant)
        health = service.executor.health.snapshot(table)
        asked = PlainRequest(table, caller.client, located.reports, found, service.clock(), health)
        shown = disclose(asked, caller.accept_language)
        return JSONResponse(shown, headers=told)


class ReceiptSource(Protocol):
    """Where receipts are looked up."""

    async def find(self, request_id: str, client: str | None) -> dict[str, object] | None:
        """The receipt of a request of this client, signed where there is a key; None if there is none."""
        ...


def _add_receipts(
    app: FastAPI, service: ChatService, receipts: ReceiptSource | None, limiter: FailedKeyLimiter
) -> None:
    @app.get("/v1/receipts/{id}", tags=["receipts"], summary="What became of a request of this caller, signed")
    async def receipt(request: Request, id: str) -> JSONResponse:
        _, caller = _visit(request, service, limiter)
        if receipts is None:
            raise ApiError("not_found", "this gateway keeps no receipts (GATEWAY_STATE_DIR is not set)")
        found = await receipts.find(id, caller.client.name if caller.client is not None else None)
        if found is None:
            raise ApiError(
                "not_found", "there is no receipt of that id for this caller; one is kept within two seconds"
            )
        return JSONResponse(found, headers=request.state.told)


def _asked_about(
    request: Request, table: ConfigVersion, client: Client | None, located: Located, name: str | None
) -> tuple[Assistant, dict[str, str]]:
    """See named_assistant, and _tell_place. A place that gets no answer is told so of an unknown name too, as its
    requests are."""
    told = _tell_place(request, located.location)
    try:
        return named_assistant(table, client, name), told
    except AssistantNotFound:
        if located.refusal is not None:
            raise Refused(located.refusal) from None
        raise


def named_assistant(table: ConfigVersion, client: Client | None, name: str | None) -> Assistant:
    """The assistant of that name; without one, the only one that this caller may ask."""
    names = sorted({found.name for found in assistants_of(table, client).values()})
    if name is None and len(names) != 1:
        raise ApiError("invalid_request", f"say which `assistant`: one of {', '.join(names)}", "assistant")
    return find_assistant(table, client, name if name is not None else names[0], "assistant")


def add_errors(app: FastAPI, hint: Callable[[str], str], blocked_by: Callable[[], str | None] = lambda: None) -> None:
    """Every error of the application in the usual envelope; `hint` tells who is lost at a path what there is, and
    `blocked_by` names the page of who refuses by law or policy."""

    def respond(request: Request, error: Exception) -> Response:
        answer = error_response(request.scope, error, blocked_by())
        # Only the public listener's requests are somebody's, from somewhere.
        told = {**getattr(request.state, "told", {}), **answer.headers}
        return Response(answer.body, answer.status, told, answer.kind)

    async def on_domain(request: Request, error: Exception) -> Response:
        return respond(request, error)

    async def on_http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status == 405:
            allowed = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
            return respond(request, method_not_allowed(request.method, allowed))
        if status == 404:
            return respond(request, ApiError("not_found", f"there is nothing at this path; {hint(request.url.path)}"))
        return respond(request, ApiError("invalid_request", str(getattr(error, "detail", error))))

    async def on_validation(request: Request, error: Exception) -> Response:
        first: Any = error.errors()[0] if isinstance(error, RequestValidationError) else {}
        place = ".".join(str(part) for part in first.get("loc", ())[1:]) or None
        return respond(request, ApiError("invalid_request", str(first.get("msg", "invalid request")), place))

    app.add_exception_handler(ApiError, on_domain)
    app.add_exception_handler(AssistantNotFound, on_domain)
    app.add_exception_handler(Refused, on_domain)
    app.add_exception_handler(InvalidRequest, on_domain)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Exception, on_domain)


def _document(app: FastAPI, is_demo: bool) -> None:
    """Put the chat endpoint and health, which FastAPI only delegates to, first in the OpenAPI document; our errors are
    no 422."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        if CHAT_PATH not in document["paths"]:
            delegated = {CHAT_PATH: {"post": dict(CHAT_OPERATION)}, **HEALTH_OPERATIONS}
            document["paths"] = {**delegated, **document["paths"]}
            # What FastAPI has put there are its own errors, which are none of ours.
            document["components"] = COMPONENTS
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    operation["responses"].update(RESPONSES.get(path, {}))
                    if path.startswith("/v1/"):
                        operation["security"] = SECURITY
                        if is_demo:
                            operation["parameters"] = [DEMO_PLACE, *operation.get("parameters", ())]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
