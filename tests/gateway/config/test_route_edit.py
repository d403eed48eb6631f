"""One route changed in the text of a config: everything else stays as it was written."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.examples import example_path
from gateway.config.problems import ConfigRejected
from gateway.config.route_edit import with_route, without_schedule
from gateway.config.yaml_document import parse_yaml
from tests.kit.case_files import cases
from tests.kit.chat_strategies import unhurried


def values(text: str) -> dict[str, Any]:
    """Return the values of a config as the compiler reads them."""
    return parse_yaml(text.encode(), "x.yaml").values


BLOCK = """\
version: 1
assistants:
  # the one that apps ask for
  a:
    aliases: [gpt-4o]
    routes:
      # mainland
      cn:
        - q   # why
        - r
      # the others
      eu: [x] # here
    # behind
  b: {routes: {cn: [q, r], us: [z]}} # both
regions: {}
"""


@cases("assistant", "region", "steps", "changed")
def test_only_the_route_changes(assistant: str, region: str, steps: list[str], changed: tuple[str, str]) -> None:
    text = with_route(BLOCK, "x.yaml", assistant, region, steps)
    assert text == BLOCK.replace(*changed, 1)
    wanted = values(BLOCK)
    wanted["assistants"][assistant]["routes"][region] = steps
    assert values(text) == wanted


@pytest.mark.parametrize("steps", [["r", "q"], ["new"], ["q", "r", "on"]])
@pytest.mark.parametrize("indent", ["      ", "        "])
def test_route_as_pyyaml_and_kubectl_write_it_can_be_edited(indent: str, steps: list[str]) -> None:
    """The dashes of a list may be below the first letter of its key."""
    text = f"assistants:\n  a:\n    routes:\n      cn:\n{indent}- q\n{indent}- r\n      eu: [x]\nregions: {{}}\n"
    changed = with_route(text, "x.yaml", "a", "cn", steps)
    wanted = values(text)
    wanted["assistants"]["a"]["routes"]["cn"] = steps
    assert values(changed) == wanted
    assert changed.startswith("assistants:\n  a:\n    routes:\n      cn:\n")


def test_route_that_ends_with_a_weighted_step_over_lines_can_be_edited() -> None:
    text = "assistants:\n  a:\n    routes:\n      cn:\n        - q\n        - r: 9\n          s: 1\n      eu: [x]\n"
    wanted = values(text)
    wanted["assistants"]["a"]["routes"]["cn"] = ["q"]
    assert values(with_route(text, "x.yaml", "a", "cn", ["q"])) == wanted


@pytest.mark.slow("edits every route of the shipped configurations")
@unhurried
@given(
    st.sampled_from(["gateway.yaml", "demo.yaml"]),
    st.sampled_from(["cn", "eu", "us", "default", "new"]),
    st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True), min_size=1, max_size=4),
)
def test_the_shipped_configs_keep_everything_else(name: str, region: str, steps: list[str]) -> None:
    text = example_path(name).read_text("utf-8")
    wanted = values(text)
    wanted["assistants"]["assistant"]["routes"][region] = steps
    assert values(with_route(text, name, "assistant", region, steps)) == wanted


@cases("text")
def test_aliased_route_is_not_edited(text: str) -> None:
    with pytest.raises(ConfigRejected, match="can't be edited in its present form; write it out"):
        with_route(text, "x.yaml", "a", "cn", ["r"])


HEAD = "version: 1\nassistants:\n  a:\n    routes: {no: [{x: 95, y: 5}]}\n"


@cases("written", "remaining")
def test_only_the_schedule_of_the_route_is_removed(written: str, remaining: str) -> None:
    assert without_schedule(HEAD + written, "x.yaml", "a", "no") == HEAD + remaining


@cases("written")
def test_shared_schedule_is_not_edited(written: str) -> None:
    with pytest.raises(ConfigRejected, match="can't be removed in its present form"):
        without_schedule(HEAD + written, "x.yaml", "a", "no")
