"""An admin application whose callbacks record their calls."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gateway.execution.failure_observations import EVERYBODY, Asker
from gateway.model.status import Changes, Reload, Status, WorkerStatus
from tests.kit.configs import BASE, KEYS, table_of

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


NOW = AT.timestamp()


TABLE = table_of(BASE, {name: value for name, value in KEYS.items() if name != "OPENAI_US_API_KEY"})


LOADED = Reload("start", True, TABLE.version, AT, 0.1)


class AdminCallbacks:
    """The callbacks of the admin listener. They record each call and return the answers that the test sets."""

    def __init__(self) -> None:
        worker = WorkerStatus(1, 4711, TABLE.version, 3, False, {})
        self.now = Status(TABLE, LOADED, None, {}, False, (worker, replace(worker, seat=2)), 2, 1, at_s=NOW)
        self.reloaded = replace(LOADED, cause="admin", changes=Changes(added=("new",)))
        self.reloads = 0
        self.rollbacks: list[tuple[str | None, str, str | None]] = []
        self.releases: list[tuple[str, str | None]] = []

    async def status(self, asker: Asker = EVERYBODY) -> Status:
        return self.now

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"some 1\n", f"text/plain; asked={accept}"

    async def reload(self, who: str) -> Reload:
        self.reloads += 1
        return replace(self.reloaded, who=who)

    async def rollback(self, version: str | None, who: str, signature: str | None) -> Reload:
        self.rollbacks.append((version, who, signature))
        return replace(self.reloaded, cause="rollback", who=who)

    async def release(self, who: str, signature: str | None) -> Reload:
        self.releases.append((who, signature))
        return replace(self.reloaded, cause="release", who=who)


PUBLIC = ("/healthz", "/health", "/readyz")


ADMIN = (*PUBLIC, "/metrics")


Answered = tuple[int, list[tuple[bytes, bytes]], bytes]


async def answer_of(app: Any, method: str, path: str, headers: dict[str, str], root_path: str = "") -> Answered:
    given = {"host": "127.0.0.1", "x-request-id": "one", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": root_path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *bodies = sent
    return start["status"], sorted(start["headers"]), b"".join(message.get("body", b"") for message in bodies)
