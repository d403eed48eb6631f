"""Sign-ins in the configuration: the keys of each kind, the boundary rule, and the hosts that may be called."""

from collections.abc import Mapping
from typing import Any

import pytest

from gateway.config.check_report import check_document, render_matrix
from gateway.config.compile import Compiled
from gateway.config.destinations import destinations_of
from gateway.config.problems import ConfigRejected
from gateway.config.schema.sign_in import SignInSection
from gateway.config.sign_ins import address_problem
from providers.sign_in.kinds import sign_in_kinds
from tests.kit import config_cases
from tests.kit.configs import Config

POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x"


def at(provider: str, model: str, endpoint: str) -> dict[str, str]:
    """Return a deployment in Germany."""
    return {"provider": provider, "model": model, "endpoint": endpoint, "stores": "DE", "processes": "DE"}


AZURE = at("azure", "gpt-6-luna", "https://x.openai.azure.com")
BEDROCK = at("bedrock", "amazon.nova-lite-v1:0", "https://b.example.de")
VERTEX = at("vertex", "gemini-2.5-flash", "https://v.example.de/v1")
OWN = at("openai-compatible", "m", "https://llm.example.de/v1")
FILE = {"token_file": "/run/token"}
ENTRA = {"kind": "azure_workload", "tenant": "t", "client": "c", **FILE}
IRSA = {"kind": "aws_web_identity", "role": "arn:aws:iam::1:role/r", "region": "eu-central-1", **FILE}
GCP = {"kind": "google_federation", "audience": POOL, **FILE}
OAUTH = {
    "kind": "oauth",
    "url": "https://id.example.de/token",
    "territory": "DE",
    "client": "c",
    "client_secret": "${S}",
}
SIGNED: Mapping[str, Mapping[str, Any]] = {
    "azure_workload": AZURE, "azure_managed": AZURE, "google_metadata": VERTEX, "google_federation": VERTEX, "oauth": OWN,
    "aws_web_identity": BEDROCK, "aws_container": BEDROCK, "aws_instance": BEDROCK,
}  # fmt: skip


def compiled(
    sign_in: Mapping[str, Any], deployment: Any = None, environ: Any = None, others: Any = None, *, reads: bool = True
) -> Compiled:
    """Compile a configuration with one deployment and its sign-in."""
    values = {
        "version": 1,
        "cell": {"territory": "DE"},
        "sign_ins": {"one": sign_in, **(others or {})},
        "assistants": {"chat": {"routes": {"eu": ["d"]}}},
        "regions": {"eu": {"territories": ["DE"], "boundary": ["@EEA"]}},
        "deployments": {"d": {"sign_in": "one", **(deployment or SIGNED[sign_in["kind"]])}},
    }
    variables: Any = {"S": "secret", **(environ or {})} if reads else None
    return config_cases.compiled(Config(values).text, variables)


def errors(*given: Any, **more: Any) -> str:
    """Return the errors of a configuration."""
    with pytest.raises(ConfigRejected) as rejected:
        compiled(*given, **more)
    return "\n".join(str(it) for it in rejected.value.problems if it.severity == "error")


def test_the_schema_has_the_kinds_of_the_table() -> None:
    assert set(SignInSection.model_json_schema()["properties"]["kind"]["enum"]) == sign_in_kinds().keys()


@pytest.mark.parametrize(
    "sign_in",
    [
        ENTRA | {"global_host": "accepted"}, {"kind": "azure_managed"}, IRSA, {"kind": "aws_container"}, {"kind": "aws_instance"},
        {"kind": "google_metadata"}, GCP | {"region": "europe-west3"}, OAUTH,
        GCP | {"region": "europe-west3", "impersonate": "a@b", "global_host": "accepted"},
    ],
)  # fmt: skip
def test_every_kind_fits_inside(sign_in: Any) -> None:
    version = compiled(sign_in).config
    assert version.deployments["d"].sign_in is not None
    assert all(one.uses for one in destinations_of(version))


def test_variables_are_read_at_load_and_named_where_they_are_missing() -> None:
    sign_in = {"kind": "azure_workload", "global_host": "accepted"}
    environ = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": "/run/token"}
    found = compiled(sign_in, environ=environ).config.sign_ins["one"]
    assert (found.terms.texts["tenant"], found.token_file, found.missing) == ("t", "/run/token", ())
    assert set(found.read_from) == environ.keys()
    lacking = compiled(sign_in).config.deployments["d"]
    assert lacking.missing_credentials == ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE")
    assert not lacking.has_credential


@pytest.mark.parametrize(
    "sign_in",
    [{"kind": "oauth", "url": "${U}", "territory": "DE", "client": "c", "token_file": "${F}"}, IRSA | {"region": "${R}"},
     GCP | {"region": "${R}", "token_file": "${F}", "audience": "${A}"}],
)  # fmt: skip
def test_values_that_are_not_read_are_not_judged(sign_in: Any) -> None:
    unread = compiled(sign_in, reads=False)
    assert unread.config.deployments["d"].has_credential
    assert not any("sign_ins" in str(it) for it in unread.warnings)
    unset = compiled(sign_in).config
    assert len(unset.sign_ins["one"].missing) == str(sign_in).count("${")
    assert not unset.deployments["d"].has_credential


def test_an_address_of_the_environment_outside_of_the_machine_is_an_error() -> None:
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://credentials.example.com/x"}
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither" in errors({"kind": "aws_container"}, environ=environ)
    for host in ("169.254.170.23/v1", "[fd00:ec2::23]/v1", "127.0.0.1:1/", "localhost:42/msi"):
        assert address_problem(f"http://{host}") is None
    for url in ("http://10.0.0.1/", "https://169.254.170.2/", "http://[fd00::1]/"):
        assert address_problem(url) is not None


def test_check_shows_each_sign_in_as_text_and_as_json() -> None:
    sign_in = {key: value for key, value in ENTRA.items() if key != "tenant"} | {"global_host": "accepted"}
    config = compiled(sign_in, environ={"AZURE_TENANT_ID": "t"}).config
    host = {"host": "login.microsoftonline.com", "territory": "any", "accepted": True}
    one = {"kind": "azure_workload", "hosts": [host], "read_from": ["AZURE_TENANT_ID"]}
    assert check_document(config, ())["sign_ins"] == {"one": one}
    line = "  one: azure_workload at login.microsoftonline.com (any, accepted); values of AZURE_TENANT_ID"
    assert line in render_matrix(config)


def test_a_container_may_call_each_address_of_the_agents_once() -> None:
    found = destinations_of(compiled({"kind": "aws_container"}).config)
    agents = [one.host for one in found if one.uses == ("sign_ins.one",)]
    assert agents == ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"]


@pytest.mark.parametrize(
    ("sign_in", "deployment"),
    [(ENTRA | {"token_file": "token", "global_host": "accepted"}, None), (IRSA, AZURE), ({**ENTRA, "rol": "x"}, None)],
)
def test_an_error_of_a_sign_in_is_no_missing_credential(sign_in: Any, deployment: Any) -> None:
    with pytest.raises(ConfigRejected) as rejected:
        compiled(sign_in, deployment)
    assert [str(it) for it in rejected.value.problems if it.severity == "warning"] == []


def test_a_proxy_is_for_token_hosts_and_never_for_a_metadata_server() -> None:
    proxy = {"url": "http://${USER}:${S}@127.0.0.1:3128", "territory": "DE"}
    environ = {"USER": "u"}
    found = compiled({**OAUTH, "proxy": proxy}, environ=environ).config.sign_ins["one"]
    assert found.permits["token"].proxy == found.links["token"].proxy == "http://127.0.0.1:3128"
    assert found.links["token"].is_remote
    assert "secret" not in repr(found)
    metadata = {"kind": "aws_instance", "region": "eu-central-1", "assume": {"role": IRSA["role"]}, "proxy": proxy}
    found = compiled(metadata, environ=environ).config.sign_ins["one"]
    assert (found.permits["token"].proxy, "token" in found.links) == ("", False)
    assert found.permits["sts"].proxy == found.links["sts"].proxy == "http://127.0.0.1:3128"
    # The proxy learns which workload asks: its place is judged too.
    far = {**OAUTH, "proxy": {**proxy, "territory": "US"}}
    assert "the proxy http://127.0.0.1:3128" in errors(far, environ=environ)


def test_the_sts_of_a_source_is_reached_as_the_source_reaches_it() -> None:
    proxy = {"url": "http://127.0.0.1:3128", "territory": "DE"}
    own = {key: value for key, value in GCP.items() if key != "token_file"} | {"region": "europe-west3", "from": "irsa"}
    config = compiled(own, others={"irsa": {**IRSA, "proxy": proxy}}).config
    source, one = config.sign_ins["irsa"], config.sign_ins["one"]
    assert one.permits["source"] == source.permits["sts"]
    assert one.links["source"] == source.links["sts"]
    assert (one.permits["source"].proxy, one.permits["token"].proxy) == ("http://127.0.0.1:3128", "")


def test_every_token_host_but_a_metadata_server_must_be_remote() -> None:
    for sign_in in ({**ENTRA, "global_host": "accepted"}, IRSA, {**GCP, "region": "europe-west3"}, OAUTH):
        one = compiled(sign_in).config.sign_ins["one"]
        assert all(link.is_remote for link in one.links.values())
        assert one.links.keys() == {*one.permits}
    assert not compiled({"kind": "azure_managed"}).config.sign_ins["one"].links
