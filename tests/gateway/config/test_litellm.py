"""The converter of LiteLLM: what it converts, what it leaves as a gap, and that it loses, invents and copies nothing."""

import contextlib
import copy
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config.problems import ConfigRejected
from gateway.config.yaml_document import parse_yaml
from gateway.litellm.conversion import Converted, convert_litellm
from gateway.litellm.models import facts
from gateway.model.served import USES, Use
from providers.registry import load_registry
from tests.gateway.config.litellm_configs import CONFIGS, FOLDER, RANDOM, SECRETS
from tests.kit.case_files import cases
from tests.kit.config_cases import compiled
from tests.kit.expected_files import expected_text

REGISTRY = load_registry()
RESTRICTIONS = yaml.safe_load(FOLDER.with_name("litellm_restrictions.yaml").read_text("utf-8"))
KEY_HASH = "sha256:" + "a" * 64


def converted(text: str) -> Converted:
    return convert_litellm(text.encode(), "litellm.yaml", REGISTRY, "2026-11-24")


def remarks(result: Converted) -> list[str]:
    return [remark for part in result.report.values() for remark in part]


def values_of(result: Converted) -> dict[str, Any]:
    source = parse_yaml(result.files["gateway.yaml"].encode(), "gateway.yaml")
    assert not source.problems, source.problems
    return source.values


def filled(result: Converted) -> dict[str, Any]:
    """Return the configuration with a value in each gap, and in nothing else."""
    config: dict[str, Any] = values_of(result)
    usual = {
        "cell": {"territory": "DE"},
        "territories": ["*"],
        "boundary": ["*"],
        "assistants": {"assistant": {"routes": {"main": ["house"]}}},
        "deployments": {"house": {"provider": "ollama", "model": "m", "endpoint": "http://127.0.0.1:1"}},
        "provider": "openai-compatible",
        "model": "m",
        "project": "acme",
        "insecure": True,
        "region": "main",
        "per": "month",
        "rates": {"CNY": 0.14, "EUR": 1.1, "as_of": "2026-11-24"},
        "clients": {"app": {"keys": [KEY_HASH], "region": "main"}},
    }
    gaps = [gap for gap in result.gaps if not gap.startswith("models.yaml")]
    for number, gap in enumerate(sorted(gaps, key=lambda path: path.endswith("endpoint"))):
        *parents, key = re.findall(r"[^.\[\]]+", gap)
        target: Any = config
        names = list(parents)
        while names:  # names may contain dots
            part = names.pop(0)
            while not isinstance(target, list) and part not in target:
                part += f".{names.pop(0)}"
            if not isinstance(target, list) and target[part] is None:
                target[part] = {}  # each of its values is a gap
            target = target[int(part)] if isinstance(target, list) else target[part]
        if parents[:1] == ["token_issuers"]:
            rule = {"client": next(iter(config["clients"])), "where": {"groups": "team"}}
            target[key] = [rule] if key == "clients" else f"https://{key}.example.com/jwks"
        elif parents[:1] == ["sign_ins"]:
            region = "europe-west3" if "google" in target.get("kind", "") else "eu-central-1"
            kind = "google_metadata" if parents[1].startswith("vertex") else "aws_instance"
            target[key] = {"kind": kind, "region": region, "global_host": "accepted"}[key]
        elif key == "sign_in":
            kinds = {name: one["kind"] for name, one in config["sign_ins"].items() if "kind" in one}
            target[key] = next(name for name, kind in kinds.items() if kind == "google_federation")
        elif key == "assistants" and parents:  # of a client
            target[key] = list(config["assistants"])
        elif key == "endpoint":
            sites = list(REGISTRY.adapters[target["provider"]].sites)
            target[key] = sites[0] if sites and "stores" not in target else "http://127.0.0.1:1"
        elif key == "keys":
            target[key] = [f"sha256:{number:064x}"]
        elif key in ("stores", "processes"):
            target[key] = "any"
        else:
            target[key] = copy.deepcopy(usual[key])
    for deployment in config["deployments"].values():  # the same server has the same facts
        if deployment.get("endpoint") == "http://127.0.0.1:1":
            deployment |= {"stores": "any", "processes": "any"}
    return config


def check(result: Converted) -> None:
    config = filled(result)
    config.pop("catalogue", None)
    compiled(json.dumps(config), {}, secrets=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_converted_file_passes_the_check_after_its_gaps_are_filled(name: str) -> None:
    result = converted(CONFIGS[name])
    assert {"cell", "regions.main.territories", "regions.main.boundary"} <= set(result.gaps)
    written = result.files["gateway.yaml"] + result.files.get("models.yaml", "")
    assert written.count("# GAP: ") == len(result.gaps)
    check(result)
    with pytest.raises(ConfigRejected) as error:
        compiled(result.files["gateway.yaml"], {}, secrets=False)
    assert ("regions", "main", "boundary") in {problem.path for problem in error.value.problems}


@pytest.mark.parametrize("name", CONFIGS)
def test_no_secret_is_copied(name: str) -> None:
    result = converted(CONFIGS[name])
    text = "".join(content for file, content in result.files.items() if file != "gateway.schema.json")
    assert not SECRETS.search(text + "".join(remarks(result)))


@pytest.mark.parametrize("name", CONFIGS)
def test_converted_files_are_those_next_to_the_source(name: str) -> None:
    """`litellm/NAME.expected` has the files that the source becomes. `WRITE=1` writes it."""
    written = {file: text for file, text in converted(CONFIGS[name]).files.items() if file != "gateway.schema.json"}
    found = "".join(f"=== {file}\n{text}" for file, text in written.items())
    assert found == expected_text(FOLDER / f"{name}.expected", found)


def without_comments(result: Converted) -> str:
    files = (text for name, text in result.files.items() if name != "gateway.schema.json")
    return "".join(line for text in files for line in text.splitlines() if not line.startswith("#"))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for key, item in items for leaf in leaves(item, (*path, key))]
    return [path]


def with_leaf(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    changed = target = copy.deepcopy(value)
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = leaf
    return changed


OTHERS = ({"never": "used"}, "another", "fast", 0, "image_generation")


def dotted(path: tuple[Any, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@pytest.mark.parametrize("name", CONFIGS)
def test_each_value_is_converted_or_listed(name: str) -> None:
    """A value that is not listed has an effect: with another one in its place, other files are written."""
    source = yaml.safe_load(CONFIGS[name])
    result = converted(json.dumps(source))
    listed = {remark.split(": ", 2)[1] for remark in remarks(result)}
    for path in leaves(source):
        is_listed = any(dotted(path[:end]) in listed for end in range(1, len(path) + 1))
        if not is_listed and not (path[0] in ("keys", "teams") and with_value(source, path) is None):
            others = (converted(json.dumps(with_leaf(source, path, value))) for value in OTHERS)
            assert any(without_comments(other) != without_comments(result) for other in others), path


def with_value(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def places(value: Any) -> list[str]:
    """Return each text below a key that states a place."""
    stated = {"stores", "processes", "territories", "boundary", "territory", "region", "cell", "available", "transit"}
    return [str(with_value(value, path)) for path in leaves(value) if stated & set(map(str, path))]


@example({"model_list": [], "teams": [], "keys": [{"key_alias": "https://u:sk-clear-1@h/v1"}]})
@given(RANDOM)
def test_any_values_are_converted_without_an_invented_place(source: dict[str, Any]) -> None:
    text = json.dumps(source)
    if not source:
        return
    result = converted(text)
    values = values_of(result)
    assert places(values) == []
    for deployment in values.get("deployments", {}).values():
        endpoint = deployment.get("endpoint")
        assert endpoint is None or endpoint.rstrip("/") in text
    every = "".join(content for name, content in result.files.items() if name != "gateway.schema.json")
    assert "sk-clear" not in every + "".join(remarks(result))
    check(result)


@given(st.text(max_size=60) | st.sampled_from(["a: [", "- x", "a: 1\na: 2", "a: !!python/object:os.x {}", "<<: 3"]))
def test_a_text_that_is_no_configuration_is_refused_with_its_line(text: str) -> None:
    with contextlib.suppress(UnicodeEncodeError, ConfigRejected):
        assert "version: 1" in converted(text).files["gateway.yaml"]


@pytest.mark.parametrize("use", USES)
def test_each_use_of_a_configuration_is_converted(use: Use) -> None:
    """LiteLLM names it in `mode`; without a mode the name of the model decides."""
    for mode in facts()["uses"][use]["modes"]:
        server = {"model": "openai/m", "api_base": "http://127.0.0.1:1"}
        entry = {"model_name": "own", "litellm_params": server, "model_info": {"mode": mode}}
        assistant = values_of(converted(json.dumps({"model_list": [entry]})))["assistants"]["own"]
        assert list(assistant) == ["routes" if use == "chat" else use]
    by_name = values_of(converted(CONFIGS["uses"]))["assistants"].values()
    assert any(("routes" if use == "chat" else use) in assistant for assistant in by_name)


def test_the_uses_of_the_converter_are_those_of_a_configuration() -> None:
    assert set(facts()["uses"]) == {*USES, "none"}


def test_issuers_are_not_converted_where_no_tokens_are_taken() -> None:
    assert "token_issuers" not in values_of(converted(CONFIGS["tokens-by-the-environment"].replace("true", "false")))


def clients_of(**members: Any) -> tuple[dict[str, Any], Converted]:
    """Return the clients of a source with the models `a` and `b`, and the whole result."""
    models = [{"model_name": name, "litellm_params": {"model": f"openai/gpt-4o-{name}"}} for name in ("a", "b")]
    keys = [{"token": f"{number:064x}"} | key for number, key in enumerate(members.pop("keys", ()))]
    result = converted(json.dumps({"model_list": models, "keys": keys, **members}))
    return values_of(result).get("clients", {}), result


@pytest.mark.parametrize("case", RESTRICTIONS["closed"].values(), ids=RESTRICTIONS["closed"])
def test_a_key_that_opens_nothing_there_is_left_out_and_named(case: dict[str, Any]) -> None:
    clients, result = clients_of(
        keys=[{"key_alias": "shut"} | case["key"], {"key_alias": "live"}], teams=[{"team_id": "t"} | case["team"]]
    )
    assert list(clients) == ["live"]
    assert [remark for remark in result.lost if remark.endswith(f"keys[0]: the client shut is left out: {case['why']}")]
    assert not result.opened


@pytest.mark.parametrize("of", ["team", "user", "organization", "organization of the team"])
@cases("key", "owner", "allowed")
def test_a_client_may_use_what_its_key_and_what_that_belongs_to_may_use(
    key: Any, owner: Any, allowed: Any, of: str
) -> None:
    kind = of.partition(" ")[0]
    entry: dict[str, Any] = {"key_alias": "app", "models": key, f"{kind}_id": "t"}
    more: dict[str, Any] = {f"{kind}s": [{f"{kind}_id": "t", "models": owner}]}
    if of == "organization of the team":
        entry |= {"organization_id": None, "team_id": "its"}
        more["teams"] = [{"team_id": "its", "organization_id": "t"}]
    clients, result = clients_of(keys=[entry], **more)
    assert clients["app"].get("assistants") == allowed
    assert not result.opened


def test_a_client_may_use_what_each_organization_of_its_key_and_of_its_team_and_user_may_use() -> None:
    entry = {"key_alias": "app", "organization_id": "o1", "team_id": "t", "user_id": "u"}
    owners = {"team_id": "t", "organization_id": "o2"}, {"user_id": "u", "organization_id": "o1"}
    listed = [{"organization_id": "o1", "models": ["b"]}, {"organization_id": "o2", "models": []}]
    clients, result = clients_of(keys=[entry], organizations=listed, teams=owners[:1], users=owners[1:])
    assert clients["app"]["assistants"] == ["b"]
    assert not result.opened


def test_the_smaller_limit_of_key_and_team_applies() -> None:
    keys = [{"key_alias": "app", "rpm_limit": 60, "tpm_limit": 5, "team_id": "t"}]
    clients, result = clients_of(keys=keys, teams=[{"team_id": "t", "rpm_limit": 10, "max_parallel_requests": 2}])
    assert clients["app"]["limits"] == {"rpm": 10, "tpm": 5, "concurrent": 2}
    assert any("teams[0].rpm_limit: it bounds each client" in remark for remark in result.different)
    assert not result.opened


@cases("expires", "until")
def test_the_end_of_a_key_is_converted(expires: str, until: str | None) -> None:
    clients, result = clients_of(keys=[{"key_alias": "app", "expires": expires}])
    digest = f"sha256:{0:064x}"
    assert clients["app"]["keys"] == ([digest] if until is None else [{"hash": digest, "expires": until}])
    assert [remark.split(": ", 2)[1] for remark in result.opened] == ([] if until else ["keys[0].expires"])
    if until:
        compiled(json.dumps(filled(result)), {}, secrets=False)


@pytest.mark.parametrize("path", RESTRICTIONS["opened"])
def test_a_restriction_that_is_not_converted_is_reported_by_itself(path: str) -> None:
    _, result = clients_of(**copy.deepcopy(RESTRICTIONS["opened"][path]))
    assert [remark.split(": ", 2)[1] for remark in result.opened] == [path]
    assert "restricts nothing here" not in result.opened[0], "the line says what to do"
    assert "\n# Closed there, open here:\n# litellm.yaml:" in result.files["gateway.yaml"]


def test_tags_restrict_only_where_they_are_looked_at() -> None:
    keys = [{"metadata": {"tags": ["free"]}}]
    _, without = clients_of(keys=keys, router_settings={"enable_tag_filtering": False})
    assert not without.opened
    _, result = clients_of(keys=keys, router_settings={"enable_tag_filtering": True})
    opened = [remark.split(": ", 2)[1] for remark in result.opened]
    assert opened == ["keys[0].metadata.tags", "router_settings.enable_tag_filtering"]


def test_what_restricts_no_prompt_is_not_among_the_restrictions() -> None:
    _, result = clients_of(**copy.deepcopy(RESTRICTIONS["harmless"]))
    assert not result.opened
    assert len(result.lost) >= 15


def test_a_global_budget_bounds_the_clients_of_teams() -> None:
    settings = {"max_budget": 100, "budget_duration": "30d"}
    teams = [{"team_id": "t", "team_alias": "Shop", "max_budget": 500, "budget_duration": "30d"}, {"team_id": "u"}]
    clients, result = clients_of(keys=[{"key_alias": "app", "team_id": "t"}], teams=teams, litellm_settings=settings)
    assert clients["app"]["project"] == "Shop"
    assert values_of(result)["projects"] == {"Shop": {"budgets": [{"amount": "100 USD", "per": "month"}]}}
    assert not result.opened
    keys = [{"team_id": "t"}, {"team_id": "u"}, {}]
    clients, result = clients_of(keys=keys, teams=teams, litellm_settings=settings)
    budget = {"amount": "100 USD", "per": "month"}
    assert values_of(result)["projects"] == {name: {"budgets": [budget]} for name in ("Shop", "u", "litellm")}
    assert "each of 3 projects" in result.opened[0]


def test_names_that_become_equal_are_distinguished() -> None:
    teams = [{"team_id": "1", "team_alias": "Team R\u00f6d"}, {"team_id": "2", "team_alias": "Team R-d"}]
    teams += [{"team_id": "3", "team_alias": "Team R d"}]
    clients, result = clients_of(keys=[{"team_id": str(number)} for number in (1, 2, 3)], teams=teams)
    assert [client["project"] for client in clients.values()] == ["Team-Rod", "Team-R-d", "Team-R-d-2"]
    assert any("teams[2].team_alias: the project Team-R-d-2" in remark for remark in result.different)


def test_a_missing_price_is_a_gap_under_a_budget_of_money() -> None:
    def gaps(**members: Any) -> list[str]:
        models = [{"model_name": name, "litellm_params": {"model": f"ollama/{name}"}} for name in ("m", "n")]
        models[0]["model_info"] = {"input_cost_per_token": 0, "output_cost_per_token": 0}  # type: ignore[assignment]
        models.append({"model_name": "gpt", "litellm_params": {"model": "openai/gpt-4o"}})
        result = converted(json.dumps({"model_list": models, **members}))
        assert result.files["gateway.yaml"].count("models.yaml") == 1
        return [gap for gap in result.gaps if gap.endswith("price")]

    assert gaps(litellm_settings={"max_budget": 1}) == ["models.yaml: models.ollama.n.price"]
    assert gaps(general_settings={"master_key": "x"}) == []


def test_a_gap_that_was_not_filled_is_an_error_where_its_absence_would_allow_more() -> None:
    result = converted(CONFIGS["keys-of-the-database"])
    with pytest.raises(ConfigRejected) as error:
        compiled(result.files["gateway.yaml"], {}, secrets=False)
    gaps = [problem for problem in error.value.problems if "still missing" in problem.message]
    others = [problem for problem in error.value.problems if problem.path[:1] == ("clients",) and problem not in gaps]
    assert others == [], "one gap is one error"
    assert [problem.path for problem in gaps] == [("clients",)] * 3  # not those of regions and deployments
    line = result.files["gateway.yaml"].splitlines()[gaps[0].line - 1]
    assert line[gaps[0].column - 1 :].startswith("# GAP: region")


def test_routes_have_a_bounded_length() -> None:
    parameters = [{"model": f"openai/{n}", "api_key": f"sk-{n}"} for n in range(200)]
    models = [{"model_name": f"m{n % 3}", "litellm_params": one} for n, one in enumerate(parameters)]
    source = {"model_list": models, "litellm_settings": {"default_fallbacks": ["m0", "m1", "m2"]}}
    assistants = values_of(converted(json.dumps(source)))["assistants"].values()
    assert max(len(one["routes"]["main"]) for one in assistants) <= 50
