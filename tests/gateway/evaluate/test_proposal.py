"""The proposed config can be served, whatever the route contained before."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.evaluate.run import proposed_config

CONFIG = """\
version: 1
demo: true
assistants:
  assistant:
    routes: {cn: [{qwen-cn: 95, ernie-cn: 5}]}
    schedules: {cn: {candidate: ernie-cn, steps: "5% for 1h, 100%"}}
    shadow: {cn: {deployment: deepseek-cn, share: 1%}}
regions:
  cn: {territories: [CN], boundary: [CN]}
deployments:
  qwen-cn: {provider: dashscope, model: qwen3-max, endpoint: simulator, simulates: cn-beijing}
  ernie-cn: {provider: qianfan, model: ernie-5.1, endpoint: simulator, simulates: cn}
  deepseek-cn: {provider: deepseek, model: deepseek-chat, endpoint: simulator, simulates: cn}
"""


@pytest.mark.parametrize("route", [("ernie-cn", "qwen-cn"), ("deepseek-cn",)])
def test_recommended_route_replaces_a_running_canary(tmp_path: Path, route: tuple[str, ...]) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    changed = proposed_config(path, "assistant", "cn", route, demo=True)
    lines = CONFIG.splitlines(keepends=True)
    lines[4:6] = [f"    routes: {{cn: [{', '.join(route)}]}}\n"]
    assert changed == "".join(lines)
