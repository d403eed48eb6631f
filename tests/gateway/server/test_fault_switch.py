"""Faults of simulated sites that are switched while they run."""

from dataclasses import replace

import pytest

from gateway.api.errors import ApiError
from gateway.server.fault_switch import FaultSwitch
from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorServer
from providers.testkit.simulator import load_simulators
from tests.kit.case_files import cases
from tests.kit.console_pages import demo_config

SITES = (("dashscope", "hongkong"), ("dashscope", "intl"), ("gemini", "global"))


def switch_of() -> tuple[FaultSwitch, dict[tuple[str, str], SimulatorServer]]:
    simulators = load_simulators().simulators
    servers = {site: SimulatorServer(simulators[site[0]], "a site", Scenario(between_events_s=0.5)) for site in SITES}
    config = demo_config()
    real = {**config.deployments, "gemini": replace(config.deployments["gemini"], simulates=None)}
    return FaultSwitch(servers, lambda: replace(config, deployments=real)), servers


def test_fault_is_set_for_the_site_and_keeps_its_pace() -> None:
    switch, servers = switch_of()
    switch.set("qwen-hk", "429=2")
    scenario = servers["dashscope", "hongkong"].scenario
    assert (scenario.faults, scenario.between_events_s) == (((HttpError(429, 2.0), 1.0),), 0.5)
    assert servers["dashscope", "intl"].scenario.faults == ()
    shown = {site.site: site for site in switch.sites()}
    assert (shown["hongkong"].fault, shown["hongkong"].deployments) == ("429=2", ("qwen-hk",))
    assert shown["hongkong"].description == "http error: status 429, retry after 2 s"
    switch.set("qwen-hk", "")
    assert (scenario.faults != (), servers["dashscope", "hongkong"].scenario.faults) == (True, ())


def test_all_faults_are_removed_also_those_of_the_command_line() -> None:
    switch, servers = switch_of()
    servers["dashscope", "intl"].scenario = Scenario(faults=((HttpError(500), 0.5),))
    switch.set("qwen-hk", "cut")
    assert [site.description for site in switch.sites()] == ["cut", "50% http error: status 500", ""]
    switch.clear()
    assert {site.description for site in switch.sites()} == {""}


@cases("name", "words", "message")
def test_fault_reaches_only_simulated_deployments_and_must_be_known(name: str, words: str, message: str) -> None:
    switch, servers = switch_of()
    with pytest.raises(ApiError) as refused:
        switch.set(name, words)
    assert message in refused.value.message
    assert all(server.scenario.faults == () for server in servers.values())


def test_clock_of_users_is_moved_where_one_process_serves() -> None:
    moved: list[int] = []
    switch = FaultSwitch({}, demo_config, moved.append)
    assert (switch.clock(None), switch.clock(3600), switch.clock(None), moved) == (0, 3600, 3600, [3600])
    with pytest.raises(ApiError, match="in `gateway demo` and `simulate` only"):
        FaultSwitch({}, demo_config).clock(3600)
