"""A converted configuration of LiteLLM serves: its key is accepted, and its budget ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.config.yaml_document import parse_yaml
from tests.kit.chat_http import CHAT, body
from tests.kit.metered_gateway import client_of, serving_file
from tests.kit.metered_provider import metered_provider

KEY = "sk-master-of-the-proxy-4711"


@pytest.mark.slow
def test_key_and_budget_of_a_converted_file_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with metered_provider("ok") as (provider, _):
        params = {"model": "openai/m", "api_base": f"{provider.origin}/ok/v1", "api_key": "os.environ/KEY"}
        prices = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.001, "max_output_tokens": 1000}
        source = {
            "model_list": [{"model_name": "assistant", "litellm_params": params, "model_info": prices}],
            "general_settings": {"master_key": KEY},
            "litellm_settings": {"max_budget": 0.3, "budget_duration": "30d"},
        }
        (tmp_path / "litellm.yaml").write_text(json.dumps(source))
        assert main(["init", "--from", str(tmp_path / "litellm.yaml"), "--to", str(tmp_path / "to")]) == 0
        assert main(["init", "--from", str(tmp_path / "litellm.yaml"), "--to", str(tmp_path / "to")]) == 2
        assert "no file was written" in capsys.readouterr().err
        path = tmp_path / "to" / "gateway.yaml"
        config = parse_yaml(path.read_bytes(), "gateway.yaml").values
        config |= {"cell": {"territory": "DE"}, "regions": {"main": {"territories": ["DE"], "boundary": ["DE"]}}}
        config["deployments"]["assistant"] |= {"stores": "DE", "processes": "DE"}  # type: ignore[index]
        config["clients"]["master"]["region"] = "main"  # type: ignore[index]
        path.write_text(json.dumps(config))
        with serving_file(path) as gateway, client_of(gateway) as stranger:
            assert stranger.post(CHAT, json=body()).status_code == 401
            with client_of(gateway, authorization=f"Bearer {KEY}") as client:
                answers = [client.post(CHAT, json=body(max_tokens=100)) for _ in range(4)]
            assert answers[0].status_code == 200, answers[0].text
            assert (answers[-1].status_code, answers[-1].json()["error"]["code"]) == (429, "insufficient_quota")
