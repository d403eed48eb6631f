"""Compile valid configs: facts, availability, capabilities, credentials, look-ups, and the warnings."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

import pytest

from gateway.config.problems import dotted
from gateway.model.config_version import Cell, ClientLimitRule, ConfigVersion, Cors
from gateway.model.deployment import Deployment
from gateway.model.location_rules import Edge, EdgeSecret, LocationRules
from gateway.model.resilience import Attempts, BreakerRule, Resilience
from providers.adapter import Adapter, Capabilities
from providers.auth import Bearer, Secret
from providers.catalogue.models import UNKNOWN_MODEL
from providers.matching.requirements import PARAMETERS
from providers.registry import Registry, load_registry
from providers.sites import Availability, Residency, Site
from providers.territories import ANYWHERE, NOWHERE, Places, parse_places
from providers.vendors.openai.adapter import OpenAIAdapter
from tests.kit.config_cases import SOUND, compiled, edited, more, problems_of, sections, with_deployment


def deployment(text: str, environ: Mapping[str, str] | None = None) -> Deployment:
    """The deployment `x` that the text describes, in a config that is sound with it."""
    return compiled(with_deployment(text), environ or {"KEY": "sk-1"}).config.deployments["x"]


def warned(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the warnings about `x`. There must be no errors."""
    found = problems_of(with_deployment(text), environ or {"KEY": "sk-1"})
    assert not [problem for problem in found if problem.severity == "error"]
    return [
        f"{dotted(problem.path[2:])}: {problem.message}"
        for problem in found
        if problem.path[:2] == ("deployments", "x") and problem.message != "no route uses this deployment"
    ]


OWN = "provider: openai-compatible, model: m, endpoint: 'https://llm.example', stores: DE, processes: '@EU'"
LUNA = "provider: openai, model: gpt-6-luna, endpoint: us"


class TestEndpoints:
    def test_a_named_site_brings_its_facts(self) -> None:
        x = deployment("provider: openai, model: gpt-6-luna, endpoint: eu, attests: [zdr], api_key: '${KEY}'")
        europe = parse_places(["@EEA", "CH"])
        assert (x.site, x.origin, x.target.base_path) == ("eu", "https://eu.api.openai.com", "/v1")
        assert x.residency == Residency(europe, europe)
        assert x.excepts == {"json_schema", "strict_tools", "decisions"}
        assert x.target.pins == {"store": False}
        assert (x.unmet, x.simulates, x.enabled, x.unsupported) == ((), None, True, "drop")
        assert x.adapter is load_registry().adapters["openai"]

    def test_the_only_site_need_not_be_named(self) -> None:
        x = deployment("provider: gemini, model: gemini-3.8-flash")
        assert (x.site, x.target.base_path) == ("global", "/v1beta")
        assert x.residency == Residency(ANYWHERE, ANYWHERE)

    def test_model_may_have_its_own_scope(self) -> None:
        inside = deployment("provider: dashscope, model: qwen-plus-us, endpoint: us")
        unknown = deployment("provider: dashscope, model: qwen-next, endpoint: us")
        assert inside.residency.processes == Places(frozenset({"US"}))
        assert unknown.residency.processes == ANYWHERE

    def test_the_same_facts_may_be_stated(self) -> None:
        facts = "stores: ['@EEA', CH], processes: [CH, '@EEA']"
        assert deployment(f"provider: openai, model: gpt-6-luna, endpoint: eu, {facts}").site == "eu"

    def test_a_server_of_the_operator_has_the_stated_facts(self) -> None:
        x = deployment(OWN)
        assert (x.site, x.origin, x.target.base_path) == ("https://llm.example", "https://llm.example", "/v1")
        assert x.residency == Residency(Places(frozenset({"DE"})), parse_places(["@EU"]))
        assert (x.available, x.excepts, x.allowed_moves) == (ANYWHERE, frozenset(), frozenset())
        assert (x.needs_credential, x.has_credential) == (False, True)

    @pytest.mark.parametrize(
        ("provider", "url", "origin", "base_path"),
        [
            ("azure", "https://a.openai.azure.com", "https://a.openai.azure.com", "/openai/v1"),
            ("azure", "https://a.openai.azure.com/openai", "https://a.openai.azure.com", "/openai"),
            ("openai-compatible", "https://LLM.example.:443", "https://llm.example", "/v1"),
            ("openai-compatible", "https://llm.example/", "https://llm.example", ""),
            ("openai-compatible", "https://llm.example:8443/api/v2/", "https://llm.example:8443", "/api/v2"),
            ("dashscope", "https://llm.example", "https://llm.example", "/api/v1"),
            ("gemini", "https://llm.example", "https://llm.example", "/v1beta"),
            ("openai-compatible", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000", "/v1"),
            ("openai-compatible", "http://127.9.9.9", "http://127.9.9.9", "/v1"),
            ("openai-compatible", "http://localhost:11434", "http://localhost:11434", "/v1"),
            ("openai-compatible", "http://[::1]:8000", "http://[::1]:8000", "/v1"),
        ],
    )
    def test_a_url_is_an_origin_and_a_base_path(self, provider: str, url: str, origin: str, base_path: str) -> None:
        x = deployment(f"provider: {provider}, model: m, endpoint: '{url}', stores: DE, processes: DE")
        assert (x.origin, x.target.base_path) == (origin, base_path)

    def test_plain_http_to_another_machine_needs_insecure(self) -> None:
        house = "provider: openai-compatible, model: m, endpoint: 'http://10.0.0.1:8000', stores: DE, processes: DE"
        assert deployment(f"{house}, insecure: true").origin == "http://10.0.0.1:8000"

    def test_a_known_host_brings_its_facts_to_any_adapter(self) -> None:
        x = deployment("provider: openai-compatible, model: m, endpoint: 'https://eu.api.openai.com'")
        assert (x.site, x.residency.stores) == ("eu", parse_places(["@EEA", "CH"]))
        assert x.unmet == ("mam or zdr",)
        assert x.target.pins == {"store": False}

    def test_a_workspace_host_has_the_facts_of_its_site(self) -> None:
        x = deployment("provider: dashscope, model: qwen-plus, endpoint: 'https://me.cn-beijing.maas.aliyuncs.com'")
        assert (x.site, x.origin) == ("cn-beijing", "https://me.cn-beijing.maas.aliyuncs.com")
        assert (x.target.base_path, x.residency.stores) == ("/api/v1", Places(frozenset({"CN"})))

    def test_deployments_may_share_an_origin(self) -> None:
        two = f"deployments:\n  qwen-cn: {{{OWN}}}\n  y: {{{edited(OWN, ('model: m', 'model: n'))}}}"
        text = sections(deployments=two, assistants="assistants: {a: {routes: {eu: [qwen-cn, y]}}}")
        assert len({it.origin for it in compiled(text).config.deployments.values()}) == 1


class TestAvailability:
    @pytest.mark.parametrize(
        ("text", "served", "unserved"),
        [
            ("provider: gemini, model: gemini-3.8-flash", ["DE", "TW"], ["HK", "MO", "CN"]),
            ("provider: gemini, model: gemini-3.8-flash, available: [DE]", ["DE"], ["FR"]),
            ("provider: openai, model: gpt-6-luna, endpoint: us, available: [UA, '!UA-43', '!UA-40', '!UA-14', '!UA-09']",
             ["UA"], ["UA-43", "DE"]),
            ("provider: dashscope, model: qwen-plus, endpoint: intl", ["SG"], ["HK", "CN"]),
            ("provider: dashscope, model: qwen-plus, endpoint: intl, available: [HK, MO]", ["SG", "HK", "MO"], ["CN", "DE"]),
            ("provider: dashscope, model: qwen-plus, endpoint: intl, available: ['*', '!CN']", ["SG", "HK", "US"], ["CN"]),
            ("provider: dashscope, model: qwen-plus, endpoint: cn-beijing", ["CN"], ["HK"]),
            (OWN, ["CN", "DE"], []),
            (f"{OWN}, available: DE", ["DE"], ["CN"]),
        ],
    )  # fmt: skip
    def test_available_territories_of_a_deployment(self, text: str, served: list[str], unserved: list[str]) -> None:
        available = deployment(text).available
        assert [code for code in served if not available.contains(code)] == []
        assert [code for code in unserved if available.contains(code)] == []


@dataclass(frozen=True)
class PluginAdapter:
    """The adapter of a plug-in: it knows no models, and its sites have facts that built-in sites do not have."""

    inner: Adapter = field(default_factory=lambda: OpenAIAdapter("openai-compatible", Bearer(), "max_tokens"))
    name: str = "stranger"
    sites: Mapping[str, Site] = field(
        default_factory=lambda: {
            "anywhere": Site(
                name="anywhere",
                origin="https://stranger.example",
                base_path="/s",
                residency=Residency(ANYWHERE, ANYWHERE),
                availability=Availability(ANYWHERE, never=frozenset({"CN"})),
                allows=frozenset({"store"}),
            )
        }
    )

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, context_tokens=4096)

    def __getattr__(self, name: str) -> object:
        if name == "models":
            raise AttributeError(name)
        return getattr(self.inner, name)


class TestCapabilities:
    def test_adapter_and_model_agree(self) -> None:
        x = deployment("provider: dashscope, model: qwen-plus, endpoint: cn-beijing")
        assert "json_schema" in x.capabilities.features
        assert "vision" not in x.capabilities.features
        assert x.capabilities.context_tokens == 1_000_000

    def test_parameters_exclude_those_that_the_model_rejects(self) -> None:
        x = deployment(LUNA)
        assert "temperature" not in x.capabilities.parameters
        assert PARAMETERS - x.target.facts.without <= x.capabilities.parameters

    def test_capabilities_replace_the_models_but_not_the_adapters(self) -> None:
        qwen = "provider: dashscope, model: qwen-plus, endpoint: cn-beijing, api_key: '${KEY}'"
        text = f"{qwen}, capabilities: [vision, file]"
        assert deployment(text).capabilities.features == {"vision"}
        assert warned(text) == ["capabilities[1]: dashscope cannot express 'file' with any model"]

    @pytest.mark.parametrize("listed", [", capabilities: [tools]", ""])
    @pytest.mark.parametrize(
        "model", ["anthropic, model: claude-opus-5, endpoint: global", "minimax, model: MiniMax-M3, endpoint: intl"]
    )
    def test_every_list_of_capabilities_has_what_the_gateway_emulates(self, model: str, listed: str) -> None:
        assert {"json_object", "tools"} <= deployment(f"provider: {model}{listed}").capabilities.features

    @pytest.mark.parametrize(
        ("provider", "model", "is_known"),
        [
            ("anthropic", "claude-unheard-of", False),
            ("anthropic", "claude-opus-99", False),
            ("anthropic", "claude-opus-5-20261101", True),
            ("gemini", "gemini-99-ultra", False),
            ("gemini", "gemini-flash-latest", True),
            ("minimax, endpoint: intl", "MiniMax-Text-01", False),
            ("minimax, endpoint: intl", "MiniMax-M3", True),
        ],
    )
    def test_model_that_no_catalogue_knows_is_a_warning(self, provider: str, model: str, *, is_known: bool) -> None:
        provider = provider if "endpoint" in provider else f"{provider}, endpoint: global"
        found = warned(f"provider: {provider}, api_key: '${{KEY}}', model: {model}")
        assert (not any("model: " in message for message in found)) is is_known

    def test_an_unknown_model_has_text_and_tools(self) -> None:
        x = deployment(OWN)
        assert x.target.facts is UNKNOWN_MODEL
        assert x.capabilities.features == {"tools"}
        assert warned(OWN) == []
        assert warned("provider: openai, model: gtp-6, endpoint: us, api_key: '${KEY}'") == [
            "model: no facts are known about openai's model 'gtp-6': only text and tools are allowed"
        ]
        assert warned("provider: openai, model: gtp-6, endpoint: us, api_key: '${KEY}', capabilities: []") == []

    @pytest.mark.parametrize(
        ("provider", "model", "near"),
        [
            ("provider: openai, endpoint: us", "gpt-6-lunna", "'gpt-6-luna'"),
            ("provider: openai, endpoint: us", "gtp-6", "'gpt-6'"),
            ("provider: dashscope, endpoint: cn-beijing", "qwen3-maxx", "'qwen3-max'"),
            ("provider: gemini, endpoint: global", "gemini-3.8-flahs", "'gemini-3.8-flash'"),
        ],
    )
    def test_misspelt_model_is_a_warning_with_the_nearest_names(self, provider: str, model: str, near: str) -> None:
        problems = problems_of(with_deployment(f"{provider}, api_key: '${{KEY}}', model: {model}"), {"KEY": "sk-1"})
        (found,) = [it for it in problems if it.path[-1:] == ("model",)]
        assert (found.severity, model in found.message) == ("warning", True)
        assert f"did you mean {near}" in found.hint

    @pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-6-luna-2026-11-01", "gpt-6.2-luna", "gpt-4o-latest"])
    def test_other_version_of_a_known_model_is_not_a_warning(self, model: str) -> None:
        assert warned(f"provider: openai, model: {model}, endpoint: us, api_key: '${{KEY}}'") == []

    def test_other_keys_of_a_deployment_are_compiled(self) -> None:
        x = deployment(f"{OWN}, unsupported: refuse, passthrough: [top_k, min_p], enabled: false")
        assert (x.unsupported, x.enabled, x.target.passthrough) == ("refuse", False, {"top_k", "min_p"})

    def test_adapter_of_a_plugin_is_accepted(self) -> None:
        registry = Registry({**load_registry().adapters, "stranger": PluginAdapter()}, {})  # type: ignore[dict-item]
        text = with_deployment("provider: stranger, model: m, api_key: '${KEY}', passthrough: [store]")
        x = compiled(text, {"KEY": "k"}, registry=registry).config.deployments["x"]
        assert x.available == Places(None, frozenset({"CN"}))
        assert (x.allowed_moves, x.target.facts) == ({"store"}, UNKNOWN_MODEL)
        assert x.capabilities.context_tokens == 4096

    def test_shared_host_belongs_to_the_named_provider_first(self) -> None:
        site = PluginAdapter().sites["anywhere"]
        wide = replace(site, name="wide", origin="https://wide.example", hosts=("*.example",))
        others = PluginAdapter(name="another", sites={"theirs": replace(site, name="theirs")})
        own = PluginAdapter(sites={"wide": wide, "anywhere": site})
        adapters = {**load_registry().adapters, "another": others, "stranger": own}
        registry = Registry(adapters, {})  # type: ignore[arg-type]
        for provider, named in (("stranger", "anywhere"), ("another", "theirs"), ("openai-compatible", "theirs")):
            text = with_deployment(f"provider: {provider}, model: m, endpoint: 'https://stranger.example'")
            assert compiled(text, registry=registry).config.deployments["x"].site == named

    def test_a_provider_that_does_not_load_is_named_with_its_reason(self) -> None:
        registry = replace(load_registry(), broken={"acme": "acme:ADAPTER: ImportError: no acme"})
        words = r"x\.provider: the provider 'acme' is installed, but cannot be loaded: acme:ADAPTER: Imp"
        with pytest.raises(Exception, match=words):
            compiled(with_deployment("provider: acme, model: m"), registry=registry)


class TestCredentials:
    def test_keys_are_resolved_and_used_in_turn(self) -> None:
        x = deployment(f"{LUNA}, api_key: ['${{A}}', '${{B}}']", {"A": "sk-a", "B": "sk-b"})
        assert x.credentials == (Secret("sk-a"), Secret("sk-b"))
        assert (x.missing_credentials, x.needs_credential) == ((), True)

    def test_unset_key_is_a_warning_and_excludes_the_deployment(self) -> None:
        text = "provider: openai, model: gpt-6-luna, endpoint: us, api_key: '${A}'"
        for environ in ({"KEY": ""}, {"A": ""}):
            x = deployment(text, environ)
            assert (x.credentials, x.missing_credentials, x.has_credential) == ((), ("A",), False)
            assert warned(text, environ) == ["api_key: A is not set: the deployment is skipped"]

    def test_one_key_of_several_may_be_unset(self) -> None:
        text = "provider: openai, model: gpt-6-luna, endpoint: us, api_key: ['${A}', '${B}']"
        x = deployment(text, {"B": "sk-b"})
        assert (x.credentials, x.missing_credentials, x.has_credential) == ((Secret("sk-b"),), ("A",), True)
        assert warned(text, {"B": "sk-b"}) == ["api_key[0]: A is not set: this key is not used"]

    def test_deployment_without_a_key_is_reported_as_missing_its_credential(self) -> None:
        text = "provider: openai, model: gpt-6-luna, endpoint: us"
        assert deployment(text).missing_credentials == ("api_key",)
        [problem] = [problem for problem in problems_of(with_deployment(text)) if problem.path[-1] == "api_key"]
        assert problem.hint == "write api_key: ${OPENAI_US_API_KEY}"

    def test_own_server_may_need_a_key(self) -> None:
        text = edited(f"{OWN}, capabilities: []", ("openai-compatible", "openai"))
        [problem] = [problem for problem in problems_of(with_deployment(text)) if problem.path[-1] == "api_key"]
        assert problem.hint == "write api_key: ${API_KEY}"

    def test_empty_key_is_reported_as_missing(self) -> None:
        text = "provider: openai, model: gpt-6-luna, endpoint: us, api_key: ''"
        assert deployment(text).missing_credentials == ("api_key",)
        assert "api_key: the key is empty: the deployment is skipped" in warned(text)

    def test_server_without_required_key_gets_the_configured_key(self) -> None:
        unset = deployment(f"{OWN}, api_key: '${{A}}'")
        assert (unset.needs_credential, unset.has_credential) == (True, False)
        assert deployment(f"{OWN}, api_key: '${{KEY}}'").credentials == (Secret("sk-1"),)

    def test_a_key_in_the_file_is_a_warning(self) -> None:
        text = "provider: openai, model: gpt-6-luna, endpoint: us, api_key: sk-literal"
        assert deployment(text).credentials == (Secret("sk-literal"),)
        assert warned(text) == ["api_key: a key is written in the config"]

    def test_deployment_without_a_required_attestation_is_skipped(self) -> None:
        text = "provider: openai, model: gpt-6-luna, endpoint: eu, api_key: '${KEY}'"
        assert deployment(text).unmet == ("mam or zdr",)
        assert warned(text) == [": the site eu requires mam or zdr, which is not attested: the deployment is skipped"]
        assert deployment(f"{text}, attests: [mam]").unmet == ()

    def test_attesting_an_unknown_condition_is_a_warning(self) -> None:
        text = "provider: openai, model: gpt-6-luna, endpoint: us, api_key: '${KEY}', attests: [zdr]"
        assert warned(text) == ["attests[0]: us does not require 'zdr'"]


class TestTable:
    def test_look_ups_are_ready(self) -> None:
        first, second = "ab" * 32, "cd" * 32
        keys = f"keys: ['sha256:{first}', 'sha256:{second.upper()}']"
        bound = f"{{{keys}, assistants: [assistant], region: cn, may_assert: [territory, user]}}"
        text = sections(clients=f"clients: {{app: {bound}, open: {{keys: ['sha256:{'ef' * 32}']}}}}")
        table = compiled(text).config
        assert table.assistants["assistant"] is table.assistants["gpt-4o"]
        assert [step.name for step in table.assistants["gpt-4o"].routes["cn"]] == ["qwen-cn"]
        assert table.clients[first] == table.clients[second]
        assert [table.clients[key].key_hash for key in (first, second)] == [first, second]
        app = table.clients[first]
        assert (app.name, app.region, app.assistants) == ("app", "cn", {"assistant"})
        assert app.may_assert == {"territory", "user"}
        assert table.clients["ef" * 32].assistants is None
        assert table.region_by_territory["NO"] is table.regions["eu"]
        assert table.region_by_territory["CH"] is table.regions["eu"]
        assert "HK" not in table.region_by_territory
        assert table.default_region is None
        assert table.blocked == Places(frozenset({"CU", "IR", "KP", "SY"}))
        assert (table.cell, table.demo) == (Cell("DE", frozenset({"eu", "us"}), {"cn": "https://cn.example"}), False)
        assert (table.regions["us"].transit, table.regions["eu"].transit) == (Places(frozenset({"DE"})), NOWHERE)

    def test_limits_and_pages(self) -> None:
        both, one, none = "ab" * 32, "cd" * 32, "ef" * 32
        clients = f"clients:\n  a: {{keys: ['sha256:{both}'], limits: {{rpm: 6000, concurrent: 500}}}}\n"
        clients += f"  b: {{keys: ['sha256:{one}'], limits: {{concurrent: 1}}}}\n  c: {{keys: ['sha256:{none}']}}"
        others = {"cors": "cors: {origins: ['https://a.example', '*']}", "resilience": "resilience: {keep_alive: 0s}"}
        table = compiled(sections(clients=clients, **others)).config
        limits = [table.clients[key].limits for key in (both, one, none)]
        assert limits == [ClientLimitRule(6000, 500), ClientLimitRule(None, 1), None]
        assert table.cors == Cors(frozenset({"https://a.example"}), any_origin=True)
        assert table.resilience.keep_alive_s == 0
        assert (compiled(sections()).config.cors, compiled(sections()).config.resilience.keep_alive_s) == (None, 10)

    def test_the_region_for_the_rest(self) -> None:
        text = sections(
            regions="regions:\n  rest: {territories: ['*'], boundary: ['*']}\n"
            "  ca: {territories: [US-CA], boundary: [US]}\n  us: {territories: [US], boundary: [US]}",
            assistants="assistants: {a: {routes: {rest: [chatgpt-us], ca: [chatgpt-us], us: [chatgpt-us]}}}",
            cell="",
        )
        table = compiled(text).config
        regions = {code: table.region_of(code) for code in ("DE", "US", "US-NY", "US-CA")}
        assert {code: region.name for code, region in regions.items() if region} == {
            "DE": "rest", "US": "us", "US-NY": "us", "US-CA": "ca",
        }  # fmt: skip

    def test_a_group_may_lack_a_country(self) -> None:
        text = sections(
            regions="regions:\n  de: {territories: [DE], boundary: ['*']}\n"
            "  eu: {territories: ['@EEA', CH, '!DE'], boundary: ['*']}",
            assistants="assistants: {a: {routes: {eu: [chatgpt-eu], de: [chatgpt-us]}}}",
            cell="",
        )
        table = compiled(text).config
        assert table.region_by_territory["DE"].name == "de"
        assert table.region_by_territory["FR"].name == "eu"

    def test_location_rules(self) -> None:
        text = sections(
            location="location:\n  signals: [edge_header, api_key]\n  conflict: refuse\n  unknown: eu\n  edges:\n"
            "    - {from: [10.0.0.0/8, '2001:db8::1'], country: CF-IPCountry, client_ip: CF-Connecting-IP, "
            "secret: {header: X-Edge, value: '${EDGE}'}}"
        )
        networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::1/128"))
        secret = EdgeSecret("x-edge", (Secret("edge-word"),))
        edges = (Edge(networks, "cf-ipcountry", "cf-connecting-ip", secret),)
        assert compiled(text).config.location.rules == LocationRules(
            signals=("edge_header", "api_key"), edges=edges, conflict="refuse", unknown="eu"
        )

    def test_resilience(self) -> None:
        assert compiled(sections()).config.resilience == Resilience()
        text = sections(
            resilience="resilience: {attempts: {per_deployment: 1, total: 3}, connect: 500ms, first_token: 1.5s, "
            "commit: 20s, idle: 5s, total: 2m, failover_after: 0s}"
        )
        assert compiled(text).config.resilience == Resilience(Attempts(1, 3), 0.5, 1.5, 20.0, 5.0, 120.0, 0.0)

    def test_breaker_and_budget(self) -> None:
        text = "resilience: {breaker: {failures: 3, rate: 25%, window: 1m, samples: 8, open: 500ms}, retry_budget: 5%}"
        found = compiled(sections(resilience=text)).config.resilience
        assert (found.breaker, found.retry_budget) == (BreakerRule(3, 0.25, 60.0, 8, 0.5), 0.05)
        assert compiled(sections(resilience="resilience: {breaker: {}}")).config.resilience == Resilience()
        off = compiled(sections(resilience="resilience: {breaker: off, retry_budget: off}")).config.resilience
        assert (off.breaker, off.retry_budget) == (None, None)

    def test_max_open_bounds_the_open_time_and_defaults_to_twice_open(self) -> None:
        for written, longest_s in (("open: 30s", 60), ("open: 30s, max_open: 45s", 45)):
            text = sections(resilience=f"resilience: {{breaker: {{{written}}}}}")
            breaker = compiled(text).config.resilience.breaker
            assert breaker.longest_open_s == longest_s
        result = compiled(sections(resilience="resilience: {breaker: {open: 30s, max_open: 5s}}"))
        assert "max_open: is shorter than `open` (30s)" in "\n".join(map(str, result.warnings))

    def test_country_code_no_is_not_a_boolean(self) -> None:
        text = sections(
            regions="regions: {no: {territories: [NO], boundary: [NO, '@EEA', CH]}}",
            assistants="assistants: {a: {routes: {no: [chatgpt-eu]}}}",
            cell="",
        )
        assert compiled(text).config.region_by_territory["NO"].name == "no"

    def test_aliases_of_yaml_repeat_whole_values(self) -> None:
        text = sections(
            regions="regions:\n  cn: {territories: [CN], boundary: [CN]}\n"
            "  eu: {territories: &europe ['@EEA', CH], boundary: *europe}\n"
            "  us: {territories: [US], boundary: [US], transit: [DE]}"
        )
        assert compiled(text).config.regions["eu"] == compiled(sections()).config.regions["eu"]

    @pytest.mark.slow("compiles many deployments")
    def test_the_work_grows_as_the_deployments_do(self) -> None:
        few, many = (calls_to_compile(many_deployments(count)) for count in (100, 1000))
        assert many < 12 * few


def many_deployments(count: int) -> str:
    """A config with one route over so many deployments."""
    names = [f"d{number}" for number in range(count)]
    rows = (f"  {name}: {{provider: openai, model: gpt-6-luna, endpoint: us, api_key: '${{K}}'}}\n" for name in names)
    return sections(
        deployments="deployments:\n" + "".join(rows),
        assistants=f"assistants:\n  a: {{routes: {{us: [{', '.join(names)}]}}}}",
    )


def calls_to_compile(text: str) -> int:
    """Return the number of function calls. A duration would depend on other work on the machine."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        table = compiled(text, {"K": "k"}).config
    finally:
        sys.setprofile(before)
    assert table.assistants["a"].routes["us"]
    return calls


def demo(text: str, **options: object) -> ConfigVersion:
    return compiled(text, {}, **options).config  # type: ignore[arg-type]


class TestDemo:
    TEXT = sections(
        version="version: 1\ndemo: true",
        cell="",
        regions=edited(SOUND["regions"], (", transit: [DE]", "")),
        deployments="""\
            deployments:
              qwen-cn: {provider: dashscope, model: qwen-plus, endpoint: simulator, simulates: cn-beijing}
              chatgpt-eu: {provider: openai, model: gpt-6-luna, endpoint: simulator, simulates: eu, attests: [zdr]}
              chatgpt-us: {provider: openai, model: gpt-6-luna, endpoint: simulator, simulates: us}
            """,
    )

    def test_a_simulator_takes_the_facts_of_its_site(self) -> None:
        compilation = compiled(self.TEXT, {})
        table = compilation.config
        assert compilation.warnings == ()
        eu, real = table.deployments["chatgpt-eu"], compiled(sections()).config.deployments["chatgpt-eu"]
        same = replace(eu, origin=real.origin, credentials=real.credentials, simulates=None)
        assert same == real
        assert (eu.simulates, eu.origin, eu.credentials) == ("eu", "http://127.0.0.1:0", (Secret("simulated"),))

    def test_a_started_simulator_has_its_origin(self) -> None:
        origins = {("dashscope", "cn-beijing"): "http://a", ("openai", "eu"): "http://b", ("openai", "us"): "http://c"}
        deployments = demo(self.TEXT, simulators=origins).deployments
        assert [item.origin for item in deployments.values()] == ["http://a", "http://b", "http://c"]

    def test_missing_simulator_is_an_error(self) -> None:
        words = "deployments.chatgpt-eu: no simulator of openai eu is running; start the gateway again"
        with pytest.raises(Exception, match=words):
            demo(self.TEXT, simulators={("dashscope", "cn-beijing"): "a", ("openai", "us"): "b"})

    def test_any_peer_is_an_edge(self) -> None:
        table = demo(self.TEXT)
        assert table.demo
        assert table.location.rules.edges == (Edge((ip_network("0.0.0.0/0"), ip_network("::/0")), "cf-ipcountry"),)

    def test_demo_can_be_forced(self) -> None:
        assert demo(edited(self.TEXT, ("demo: true", "demo: false")), demo=True).demo

    def test_a_simulator_needs_no_project_of_its_operator(self) -> None:
        x = "x: {provider: vertex, model: gemini-3.5-flash, endpoint: simulator, simulates: eu}"
        assert demo(f"{self.TEXT}  {x}\n").deployments["x"].target.base_path == "/v1/projects/PROJECT/locations/eu"

    def test_a_key_of_a_simulator_is_not_sent(self) -> None:
        text = edited(self.TEXT, ("simulates: us}", "simulates: us, api_key: '${REAL}'}"))
        assert demo(text).deployments["chatgpt-us"].credentials == (Secret("simulated"),)


def test_temporary_problem_is_not_an_error() -> None:
    table = compiled(sections(), {}).config
    assert not any(item.has_credential for item in table.deployments.values())
    assert table.assistants["assistant"].routes["us"] == (table.deployments["chatgpt-us"],)


def test_prompts_are_logged_by_the_cell_that_serves_their_region() -> None:
    """One file for all cells, each with its own `cell`."""
    logged = "{territories: [CN], boundary: [CN], log_prompts: true}"
    regions = edited(SOUND["regions"], ("{territories: [CN], boundary: [CN]}", logged))
    for territory, serves, expected in (("DE", "[eu, us]", False), ("CN", "[cn]", True)):
        table = compiled(sections(regions=regions, cell=f"cell: {{territory: {territory}, serves: {serves}}}")).config
        assert table.regions["cn"].log_prompts is expected
        assert not table.regions["eu"].log_prompts


def test_fields_that_a_deployment_passes_on_are_never_misspelled() -> None:
    own = "x: {provider: openai-compatible, model: m, endpoint: 'http://127.0.0.1:9/v1', stores: DE, processes: DE, "
    text = sections(deployments=more("deployments", own + "passthrough: [max_token, min_tokens]}"))
    config = compiled(text, {"KEY": "sk-1"}).config
    assert "max_token" in config.known_fields
    assert "min_tokens" not in config.known_fields
