"""What is asked for ever by those who watch a gateway: endpoints that need no framework, and so no memory for one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from gateway.api.errors import ApiError
from gateway.api.plain import Answer, answer_json, error_answer, method_refused, send_answer

Application = Callable[[Any, Callable[[], Any], Callable[[Any], Any]], Coroutine[Any, Any, None]]
_ALIVE = answer_json({"status": "ok"})
_READY = answer_json({"status": "ready"})
_DRAINING = answer_json({"status": "draining"}, 503)


class Probe:
    """One endpoint, as an ASGI application. answers: what is told, by the scope; it may raise ApiError."""

    def __init__(self, answers: Callable[[Any], Awaitable[Answer]], *, takes_head: bool = True) -> None:
        self._answers = answers
        self._methods = ("GET", "HEAD") if takes_head else ("GET",)

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """One request."""
        try:
            if scope["method"] not in self._methods:
                raise method_refused(scope["method"], "GET")
            answer = await self._answers(scope)
        except ApiError as error:
            answer = error_answer(scope, error)
        except Exception as error:  # as any fault of ours: told to the client, and to the server's log
            await send_answer(send, error_answer(scope, error))
            raise
        await send_answer(send, answer)


class ProbesFirst:
    """ASGI: the probes by their exact path, everything else by another application.

    That one has them too, for whoever spells a path in another way that is the same.
    """

    def __init__(self, probes: Mapping[str, Probe], rest: Application) -> None:
        self._probes = probes
        self._rest = rest

    def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> Coroutine[Any, Any, None]:
        """One request."""
        probe = self._probes.get(scope["path"]) if scope["type"] == "http" and not scope.get("root_path") else None
        return (probe or self._rest)(scope, receive, send)


async def alive(_: object) -> Answer:
    """The process is."""
    return _ALIVE


def health_probes(is_draining: Callable[[], bool]) -> dict[str, Probe]:
    """Those of the public listener, by path."""

    async def ready(_: object) -> Answer:
        return _DRAINING if is_draining() else _READY

    # `/health` is where those look who have run another gateway.
    return {"/healthz": Probe(alive), "/health": Probe(alive), "/readyz": Probe(ready)}
