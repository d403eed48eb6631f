"""The rules of time for tokens of sign-ins, in virtual time: renewal, back-off, a subject that is late, and reloads."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from gateway.execution.service_client import ServiceFailed, ServiceResponse
from gateway.identity.token_refresher import TokenRefresher
from gateway.model.config_version import ConfigVersion
from gateway.model.held_token import TokenNote
from providers.auth import Secret
from tests.kit.configs import Config, table_of
from tests.kit.virtual_time import TurningLoop

HOUR = 3600.0


class InlineLoop(TurningLoop):
    """A loop with virtual time that runs what is given to a thread at once."""

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        done: asyncio.Future[Any] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


@dataclass
class Issuer:
    """An issuer with a script. The last answer of each sign-in is repeated. `asked` has the moments by its client."""

    answers: dict[str, list[Any]]
    asked: dict[str, list[float]] = field(default_factory=dict)

    async def call(self, permit: object, wire: Any, *, limit_s: float, most_bytes: int, link: object) -> Any:
        """See ServiceClient."""
        client = wire.path.strip("/")
        self.asked.setdefault(client, []).append(asyncio.get_running_loop().time() - 1000)
        script = self.answers[client]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, float):  # an issuer that answers late
            await asyncio.sleep(answer)
            raise ServiceFailed("no answer")
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return answer


def token(text: str = "token", expires_in: object = HOUR, **more: object) -> ServiceResponse:
    """Return an answer with a token."""
    body = {"access_token": text, "expires_in": expires_in, **more}
    return ServiceResponse(200, {}, json.dumps({name: value for name, value in body.items() if value}).encode())


def failure(status: int, **headers: str) -> ServiceResponse:
    """Return an error of an issuer."""
    return ServiceResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, b"{}")


def config_of(sign_ins: dict[str, Any]) -> ConfigVersion:
    """Return a version with a deployment for each sign-in."""
    shared = {"kind": "oauth", "territory": "DE", "client": "c", "client_secret": "${SECRET}"}
    made = {name: {**shared, "url": f"https://id.example.de/{name}", **keys} for name, keys in sign_ins.items()}
    for each in made.values():
        if {"token_file", "from"} & each.keys() or each["kind"] != "oauth":
            del each["client_secret"]
        if each["kind"] != "oauth":
            del each["url"], each["territory"]
        if each["kind"] == "azure_managed":
            del each["client"]
    shared = {"model": "m", "stores": "DE", "processes": "DE"}
    deployments = {
        f"uses-{name}": {
            **shared,
            "provider": "openai-compatible" if made[name]["kind"] == "oauth" else "azure",
            "endpoint": f"https://{name}.example.de/openai/v1",
            "sign_in": name,
        }
        for name in sign_ins
    }
    assistants = {"assistant": {"routes": {"world": [*deployments]}}}
    regions = {"world": {"territories": ["*"], "boundary": ["*"]}}
    data = {"version": 1, "regions": regions, "assistants": assistants, "deployments": deployments, "sign_ins": made}
    return table_of(Config({**data, "location": {"unknown": "world"}}), {"SECRET": "s"})


class World:
    """A refresher in virtual time. `unix_ahead_s` moves the wall clock."""

    def __init__(self, issuer: Issuer, draw: float = 0.5) -> None:
        self.issuer, self.unix_ahead_s = issuer, 1.8e9
        self.notes: list[tuple[str, TokenNote]] = []
        self._loop = asyncio.get_running_loop()
        self.refresher = TokenRefresher(
            issuer,  # type: ignore[arg-type]
            lambda sign_in, note: self.notes.append((sign_in.partition(" ")[0], note)),
            monotonic=self._loop.time,
            unix=lambda: self._loop.time() + self.unix_ahead_s,
            draw=lambda: draw,
        )

    async def aclose(self) -> None:
        """End the tasks."""
        await self.refresher.aclose()

    async def until(self, moment_s: float) -> None:
        """Let the time pass."""
        await asyncio.sleep(moment_s + 1000 - self._loop.time())

    @property
    def states(self) -> dict[str, str]:
        """The states by name."""
        return {it.name: it.state for it in self.refresher.statuses()}


def in_virtual_time(scene: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test, or another scene, in a loop with virtual time."""

    @wraps(scene)
    def run(*args: Any, **named: Any) -> None:
        with closing(InlineLoop()) as loop:
            loop.run_until_complete(scene(*args, **named))

    return run


@asynccontextmanager
async def refreshing(
    issuer: Issuer, *, draw: float = 0.5, sign_in: dict[str, Any] | None = None
) -> AsyncIterator[World]:
    """A world that has begun to refresh the token of the sign-in `a`."""
    async with aclosing(World(issuer, draw)) as world:
        world.refresher.apply(config_of({"a": sign_in or {}}))
        yield world


def moments(answers: list[Any], until_s: float, draw: float = 0.5) -> list[float]:
    """Return when an issuer with these answers is asked."""
    issuer = Issuer({"a": answers})

    @in_virtual_time
    async def scene() -> None:
        async with refreshing(issuer, draw=draw) as world:
            await world.until(until_s)

    scene()
    return [round(at, 2) for at in issuer.asked["a"]]


@pytest.mark.parametrize(
    ("lifetime_s", "draw", "second_s"),
    [
        (HOUR, 0.0, HOUR - 900),
        (HOUR, 1.0, HOUR - 300),
        (HOUR, 0.5, HOUR - 600),
        (600.0, 0.0, 300.0),
        (600.0, 1.0, 450.0),
        (86400.0, 0.0, 86400 - 900),
    ],
)
def test_a_renewal_starts_at_a_drawn_moment(lifetime_s: float, draw: float, second_s: float) -> None:
    answers = [token("one", lifetime_s), token("two", lifetime_s)]
    assert moments([*answers], second_s - 0.01, draw) == [0]
    assert moments([*answers], second_s + 0.01, draw) == [0, second_s]


def test_the_back_off_doubles_and_obeys_the_issuer() -> None:
    assert moments([failure(500)], 200) == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    assert moments([failure(500)], 2.5, draw=0.0) == [0, 0.8, 2.4]
    assert moments([failure(500)], 3.7, draw=1.0) == [0, 1.2, 3.6]
    assert moments([failure(429, retry_after="7"), failure(429, retry_after="3600"), token()], 70) == [0, 7, 67]
    # An issuer that writes 0 s is not flooded.
    assert moments([failure(503, retry_after="0")], 2.5) == [0, 1, 2]
    assert moments([failure(401)], 130) == [0, 60, 120]
    assert moments([ServiceFailed("no route")], 2) == [0, 1]


@in_virtual_time
async def test_the_same_token_again_is_no_failure() -> None:
    # A metadata server repeats its token. `expires_in` is what is left of it, in whole seconds.
    loop = asyncio.get_running_loop()

    def cached() -> ServiceResponse:
        return token("cached", int(1000 + 1200 - loop.time()))

    async with refreshing(Issuer({"a": [cached]}), draw=0.0) as world:
        await world.until(800)
        asked = [round(at) for at in world.issuer.asked["a"]]
        assert asked == [0, 600, 660, 720, 780]
        assert world.states == {"a": "ok"}
        await world.until(1150)
        later = [round(b - a) for a, b in zip(world.issuer.asked["a"], world.issuer.asked["a"][1:], strict=False)]
        assert later[4:8] == [60, 60, 60, 60]
        assert later[-1] < 20
        assert world.refresher.exchanges.keys() == {("a", "ok")}


@pytest.mark.parametrize("broken", [10**400, -5, 0.0, "NaN", "Infinity", [], 1e308, True])
@in_virtual_time
async def test_no_lifetime_ends_the_renewal_or_floods_the_issuer(broken: object) -> None:
    wrong = ServiceResponse(200, {}, b'{"access_token": "t", "expires_in": %s}' % str(broken).encode())
    if isinstance(broken, list):
        wrong = ServiceResponse(200, {}, b'{"access_token": ["t"]}')
    async with refreshing(Issuer({"a": [wrong]})) as world:
        await world.until(60)
        assert 1 <= len(world.issuer.asked["a"]) <= 130
        assert not world.refresher._kept["a"].task.done()
        assert world.refresher.statuses()[0].document()


@in_virtual_time
async def test_a_fault_of_an_exchange_does_not_end_the_renewal() -> None:
    async with refreshing(Issuer({"a": [RuntimeError("token-of-someone"), token()]})) as world:
        await world.until(0.5)
        [status] = world.refresher.statuses()
        assert (status.state, status.error) == ("none", "malformed: the exchange has a fault (RuntimeError)")
        await world.until(1.5)
        assert world.states == {"a": "ok"}


@in_virtual_time
async def test_an_outage_over_the_end_of_a_token() -> None:
    async with refreshing(Issuer({"a": [token("one", 600.0), failure(503), failure(503)]})) as world:
        await world.until(374)
        assert world.states == {"a": "ok"}
        await world.until(569)
        assert world.states == {"a": "failing"}
        await world.until(571)  # less than 30 s are left
        [status] = world.refresher.statuses()
        assert (status.state, status.seconds_left, status.error) == ("none", 29, "unreachable: status 503")
        await world.until(2000)
        world.issuer.answers["a"] = [token("two")]
        await world.until(2061)
        assert world.states == {"a": "ok"}
        assert [note.token is not None and note.token.secret for _, note in world.notes][-1] == Secret("two")


@in_virtual_time
async def test_a_wall_clock_that_is_set_ends_the_wait_for_an_absolute_end() -> None:
    loop = asyncio.get_running_loop()
    issuer = Issuer({"metadata/identity/oauth2/token": []})
    async with aclosing(World(issuer)) as world:
        ahead_s = world.unix_ahead_s

        def managed() -> ServiceResponse:
            return token("t", None, expires_on=str(int(loop.time() + world.unix_ahead_s + HOUR)))

        issuer.answers["metadata/identity/oauth2/token"] = [managed]
        config = config_of({"vm": {"kind": "azure_managed"}})
        world.refresher.apply(config)
        await world.until(100)
        world.unix_ahead_s = ahead_s + 2 * HOUR
        assert world.states == {"vm": "none"}
        await world.until(131)
        assert world.states == {"vm": "ok"}


@in_virtual_time
async def test_a_subject_that_changes_late_ends_the_wait_after_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    sign_in = {"token_file": str(tmp_path / "token")}
    async with refreshing(Issuer({"a": [failure(400), token()]}), sign_in=sign_in) as world:
        await world.until(20)
        assert len(world.issuer.asked["a"]) == 1
        # A kubelet replaces a link.
        (tmp_path / "next").write_text("new-subject")
        (tmp_path / "token").unlink()
        (tmp_path / "token").symlink_to(tmp_path / "next")
        await world.until(22)
        assert world.states == {"a": "ok"}


@in_virtual_time
async def test_a_sign_in_is_tried_again_as_soon_as_its_source_has_a_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("workload")
    source = "t/oauth2/v2.0/token"
    issuer = Issuer({source: [failure(500)] * 6 + [token("subject")], "a": [token()]})
    sign_ins = {"a": {"from": "pod"}, "pod": {"kind": "azure_workload", "global_host": "accepted"}}
    sign_ins["pod"] |= {"tenant": "t", "client": "c", "token_file": str(tmp_path / "token")}
    async with aclosing(World(issuer)) as world:
        world.refresher.apply(config_of(sign_ins))
        await world.until(62)
        [status, _] = world.refresher.statuses()
        assert status.error == "unreachable: its source, the sign-in pod, has no token"
        assert issuer.asked.keys() == {source}
        await world.until(65)
        assert world.states == {"a": "ok", "pod": "ok"}


@in_virtual_time
async def test_a_forced_exchange_is_made_once_in_60_s() -> None:
    answers = [token(text) for text in ("one", "two", "three")]
    async with refreshing(Issuer({"a": answers})) as world:
        sign_in = config_of({"a": {}}).sign_ins["a"].id
        await world.until(1)
        world.refresher.force(sign_in, Secret("one"))
        world.refresher.force(sign_in, Secret("one"))
        await world.until(2)
        assert len(world.issuer.asked["a"]) == 2
        # The present token is another one than the one that was sent: no exchange, but who waits gets it.
        before = len(world.notes)
        world.refresher.force(sign_in, Secret("one"))
        world.refresher.force(sign_in, Secret("two"))
        assert len(world.notes) == before + 2
        await world.until(60)
        assert len(world.issuer.asked["a"]) == 2
        await world.until(62)
        world.refresher.force(sign_in, Secret("two"))
        await world.until(63)
        assert len(world.issuer.asked["a"]) == 3


@in_virtual_time
async def test_a_reload_keeps_an_unchanged_token_and_never_that_of_a_changed_sign_in() -> None:
    issuer = Issuer({"a": [token("of-a")], "b": [4.0, token("of-b")], "other": [4.0, token("of-other")]})
    async with aclosing(World(issuer)) as world:
        first = config_of({"a": {}, "b": {}})
        world.refresher.apply(first)
        await world.until(2)  # the exchange of b is running
        world.refresher.apply(config_of({"a": {}, "b": {}}))
        await world.until(5.5)
        assert {name: len(asked) for name, asked in issuer.asked.items()} == {"a": 1, "b": 2}
        changed = config_of({"a": {"url": "https://id.example.de/other"}, "b": {}})
        assert changed.sign_ins["a"].id != first.sign_ins["a"].id
        assert changed.sign_ins["b"].id == first.sign_ins["b"].id
        world.refresher.apply(changed)
        await world.until(6)
        # Until its first exchange has ended, there is no token: the previous one is of another workload.
        assert world.states == {"a": "none", "b": "ok"}
        assert changed.sign_ins["a"].id not in {key for key, note in world.refresher.notes().items() if note.token}
        await world.until(15)
        assert world.states == {"a": "ok", "b": "ok"}


def test_the_file_of_the_subject_is_a_part_of_what_a_token_belongs_to() -> None:
    ids = {config_of({"a": {"token_file": path}}).sign_ins["a"].id for path in ("/one", "/two", "/two")}
    assert len(ids) == 2
