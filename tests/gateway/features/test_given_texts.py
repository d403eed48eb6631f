"""For which texts a crisis text was given: in the journal for all workers, in Valkey for all instances, for 24 hours."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cell.outage_gate import OutageGate
from gateway.cell.valkey_gate import ValkeyGate
from gateway.execution.exchange import Said
from gateway.execution.failure_observations import Asker
from gateway.features.crisis.given_texts import GivenTexts
from gateway.model.config_version import ConfigVersion
from gateway.model.location import Location
from gateway.usage.gate import GateUnavailable
from gateway.usage.journal import Journal
from providers.chat import AssistantMessage, UserMessage
from providers.value import replace
from tests.kit.configs import table_of
from tests.kit.crisis_gateway import CRISIS, SAD
from tests.kit.judged_chats import CONFIG
from tests.kit.valkey_server import RunningValkey, running_valkey

DAY_S = 86_400
KEY = b"k" * 32


ASKER = ("client app", "user anna")


def said(*texts: str) -> list[Said]:
    return [(UserMessage, text) for text in texts]


def place(**crisis: object) -> tuple[ConfigVersion, Location, Asker]:
    region = {"territories": ["US"], "crisis": {**CRISIS, **crisis}}
    config = table_of(CONFIG.merge({"regions": {"default": region}}))
    return config, Location(config.regions["default"], "US", "edge_header", ()), ASKER


AT = place()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningValkey]:
    with running_valkey() as running:
        yield running


def test_each_worker_knows_it_for_a_day(tmp_path: Path) -> None:
    now_s = 1_000_000.0

    def now_ns() -> int:
        return int(now_s * 1e9)

    async def known(journal: Journal) -> set[Said]:
        return await GivenTexts(KEY, journal).known(*AT, said(SAD, "Hello."))

    with closing(Journal.open(tmp_path, now_ns)) as one, closing(Journal.open(tmp_path, now_ns)) as two:
        assert asyncio.run(known(two)) == set()
        asyncio.run(GivenTexts(KEY, one).add(*AT, said(SAD)))
        one.forget()
        now_s += DAY_S - 1
        assert asyncio.run(known(two)) == {*said(SAD)}
        now_s += 1
        assert asyncio.run(known(two)) == set()
        asyncio.run(GivenTexts(KEY, one).add(*AT, said(SAD)))
        assert asyncio.run(known(two)) == {*said(SAD)}, "found anew, it counts for another day"
        now_s += DAY_S + 61
        one.forget()
        assert one.do_now(lambda txn, _: list(txn.cursor().iternext(values=False))) == [b"last"]


def test_process_without_a_gate_knows_it_for_a_day() -> None:
    now_s = 0.0
    given = GivenTexts(KEY, None, lambda: now_s)
    asyncio.run(given.add(*AT, said(SAD)))
    now_s = DAY_S - 1
    assert asyncio.run(given.known(*AT, said(SAD, "Hello."))) == {*said(SAD)}
    now_s = DAY_S
    assert asyncio.run(given.known(*AT, said(SAD))) == set()


def test_region_whose_metadata_may_not_be_kept_is_in_memory_only(tmp_path: Path) -> None:
    config, location, asker = AT
    transit = replace(location, may_be_kept=False)
    with closing(Journal.open(tmp_path)) as journal:
        given = GivenTexts(KEY, journal)
        asyncio.run(given.add(config, transit, asker, said(SAD)))
        assert asyncio.run(given.known(config, transit, asker, said(SAD))) == {*said(SAD)}
        assert asyncio.run(GivenTexts(KEY, journal).known(config, location, asker, said(SAD))) == set()


@pytest.mark.parametrize("other", [{"text": {"en": "Help: 1."}}, {"categories": ["self-harm", "violence"]}])
def test_other_rules_of_the_region_are_another_text(other: dict[str, object]) -> None:
    given = GivenTexts(KEY, None)
    asyncio.run(given.add(*AT, said(SAD)))
    assert asyncio.run(given.known(*place(**other), said(SAD))) == set()
    assert asyncio.run(given.known(*place(then="answer"), said(SAD))) == {*said(SAD)}


@pytest.mark.parametrize("other", [("client app",), ("client app", "user otto"), ("client other", "user anna"), ()])
def test_another_user_or_client_is_not_known(other: Asker) -> None:
    given = GivenTexts(KEY, None)
    asyncio.run(given.add(*AT, said(SAD)))
    assert asyncio.run(given.known(*AT[:2], other, said(SAD))) == set()
    assert asyncio.run(given.known(*AT, [(AssistantMessage, SAD)])) == set(), "an answer is another thing"


def test_gate_that_cannot_be_asked_knows_nothing() -> None:
    class Gone(Journal):
        def __init__(self) -> None:
            pass

        async def remember(self, keys: object, kept_s: int) -> None:
            raise GateUnavailable("gone")

        async def remembers(self, keys: object) -> list[bool]:
            raise GateUnavailable("gone")

    given = GivenTexts(KEY, Gone())
    asyncio.run(given.add(*AT, said(SAD)))
    assert asyncio.run(given.known(*AT, said(SAD))) == set()


def test_instances_of_a_cell_know_it_and_an_outage_is_the_matter_of_each(server: RunningValkey, tmp_path: Path) -> None:
    async def check() -> None:
        gates = [ValkeyGate(server.address, "de", f"{name}/1", deadline_s=5) for name in ("one", "two")]
        with closing(Journal.open(tmp_path / "1")) as first, closing(Journal.open(tmp_path / "2")) as second:
            one, two = (
                GivenTexts(KEY, OutageGate(gate, journal, lambda: None))
                for gate, journal in zip(gates, (first, second), strict=True)
            )
            await one.add(*AT, said("before"))  # no connection yet
            assert (await one.known(*AT, said("before")), await two.known(*AT, said("before"))) == (
                {*said("before")},
                set(),
            )
            for gate in gates:
                await gate.connection.start()
            await one.add(*AT, said(SAD, "other"))
            assert await two.known(*AT, said(SAD, "Hello.", "other")) == {*said(SAD, "other")}
            [name, _] = await gates[0].connection.call("KEYS", "*")  # type: ignore[misc]
            assert DAY_S - 10 < await gates[0].connection.call("TTL", name) <= DAY_S  # type: ignore[has-type, operator]
            for gate in gates:
                await gate.connection.close()

    asyncio.run(check())
