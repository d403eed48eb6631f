"""The vendors' libraries sign in at the simulated issuers: their requests and ours have equal method, path and fields.

`ALLOWED` lists the differences with their reasons.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from providers.testkit import SimulatedIssuers, SimulatorThread
from tests.kit.sign_ins import POOL, ROLE, run, subject, terms

azure_identity = pytest.importorskip("azure.identity")
azure_transport = pytest.importorskip("azure.core.pipeline.transport")
oauth = pytest.importorskip("requests_oauthlib")
oauth_clients = pytest.importorskip("oauthlib.oauth2")
pytest.importorskip("botocore")
import botocore.session  # noqa: E402
import google.auth.aws  # noqa: E402
import google.auth.compute_engine  # noqa: E402
import google.auth.identity_pool  # noqa: E402
import google.auth.transport.requests  # noqa: E402
from botocore.utils import InstanceMetadataFetcher  # noqa: E402

pytestmark = [
    pytest.mark.slow("imports the libraries of three clouds"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

TENANT, CLIENT, SCOPE = "11111111-2222-3333-4444-555555555555", "c-1", "https://cognitiveservices.azure.com/.default"
ACCOUNT = "gw@p.iam.gserviceaccount.com"
EU = "eu-central-1"
_CHANGING = {"subject_token", "client_assertion", "WebIdentityToken"}
"""Fields whose values are new in each exchange, or signed: their forms are compared."""

ALLOWED = {"impersonate": {"delegates": "google-auth writes null for an empty list"}}


def local(url: str, issuers: SimulatedIssuers) -> str:
    """Return where a simulated issuer has the path of a real one."""
    _scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    if host.startswith("127.0.0.1"):
        return url
    is_google = "google" in host or path.startswith("computeMetadata")
    return f"{issuers.url}/{'google' if is_google else 'azure'}/{path}"


class AzureTransport(azure_transport.RequestsTransport):  # type: ignore[name-defined]
    """Sends the requests of azure-identity to the simulated issuers."""

    def __init__(self, issuers: SimulatedIssuers) -> None:
        super().__init__(use_env_settings=False)
        self._issuers = issuers

    def send(self, request: Any, **kwargs: Any) -> Any:
        request.url = local(request.url, self._issuers)
        return super().send(request, **kwargs)


class GoogleRequest(google.auth.transport.requests.Request):
    """Sends the requests of google-auth to the simulated issuers."""

    def __init__(self, issuers: SimulatedIssuers) -> None:
        session = requests.Session()
        session.trust_env = False
        super().__init__(session)
        self._issuers = issuers

    def __call__(self, url: str, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(local(url, self._issuers), *args, **kwargs)


class Supplier(google.auth.aws.AwsSecurityCredentialsSupplier):
    """Credentials of AWS that google-auth signs with."""

    def __init__(self, keys: str) -> None:
        self._keys = keys.split(":")

    def get_aws_security_credentials(self, context: Any, request: Any) -> Any:
        return google.auth.aws.AwsSecurityCredentials(*self._keys)

    def get_aws_region(self, context: Any, request: Any) -> str:
        return EU


@pytest.fixture
def issuers() -> Iterator[SimulatedIssuers]:
    issuers = SimulatedIssuers()
    with SimulatorThread({"issuers": issuers}):  # type: ignore[dict-item]
        yield issuers


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(subject())
    return path


def shown(call: dict[str, Any]) -> dict[str, Any]:
    """Return what is compared of a call."""
    allowed = ALLOWED.get(call["kind"], {})
    fields = {
        name: value if name not in _CHANGING else value.count(".")
        for name, value in call["fields"].items()
        if name not in allowed
    }
    if call["fields"].get("subject_token_type", "").endswith("aws4_request"):
        signed = json.loads(requests.utils.unquote(call["fields"]["subject_token"]))  # type: ignore[attr-defined]
        fields["subject_token"] = (signed["method"], signed["url"], {it["key"].lower() for it in signed["headers"]})
    return {"kind": call["kind"], "method": call["method"], "path": call["path"], "fields": fields}


def compare(issuers: SimulatedIssuers, theirs: Callable[[], object], ours: Any) -> list[dict[str, Any]]:
    """Make both exchanges, and return the calls, which must be equal."""
    theirs()
    theirs_made = [*issuers.calls]
    of_library = [shown(call) for call in theirs_made]
    issuers.calls.clear()
    asyncio.run(ours)
    assert [shown(call) for call in issuers.calls] == of_library
    for one, other in zip(theirs_made, issuers.calls, strict=True):
        pairs: Any = one["fields"], other["fields"]
        differing = {name for name in pairs[0].keys() | pairs[1].keys() if pairs[0].get(name) != pairs[1].get(name)}
        assert differing - _CHANGING == ALLOWED.get(str(one["kind"]), {}).keys()  # each is still a difference
    assert {call["status"] for call in issuers.calls} == {200}
    return of_library


def test_azure_workload(issuers: SimulatedIssuers, token_file: Path) -> None:
    with azure_identity.WorkloadIdentityCredential(
        tenant_id=TENANT,
        client_id=CLIENT,
        token_file_path=str(token_file),
        transport=AzureTransport(issuers),
        disable_instance_discovery=True,
    ) as theirs:
        ours = run(
            terms("azure_workload", issuers.url, tenant=TENANT, client=CLIENT, scope=SCOPE), token_file.read_text()
        )
        [call] = compare(issuers, lambda: theirs.get_token(SCOPE), ours)
    assert call["path"] == f"/azure/{TENANT}/oauth2/v2.0/token"


@pytest.mark.parametrize("is_service", [False, True])
@pytest.mark.parametrize("client", ["", CLIENT])
def test_azure_managed(
    issuers: SimulatedIssuers, monkeypatch: pytest.MonkeyPatch, is_service: bool, client: str
) -> None:
    texts = {"scope": SCOPE} | ({"client": client} if client else {})
    if is_service:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{issuers.url}/azure/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "h")
        texts |= {"identity_header": "h", "path": "/msi/token"}
    with azure_identity.ManagedIdentityCredential(
        **({"client_id": client} if client else {}), transport=AzureTransport(issuers)
    ) as theirs:
        compare(issuers, lambda: theirs.get_token(SCOPE), run(terms("azure_managed", issuers.url, **texts)))


def test_aws_web_identity_and_an_assumed_role(
    issuers: SimulatedIssuers, token_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file), "AWS_ROLE_SESSION_NAME": "gateway"}
    values |= {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    values |= {"AWS_ENDPOINT_URL_STS": f"{issuers.url}/aws/", "AWS_DEFAULT_REGION": EU}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    session = botocore.session.Session()

    def theirs() -> None:
        session.get_credentials().get_frozen_credentials()
        sts = session.create_client("sts", region_name=EU)
        sts.assume_role(RoleArn=ROLE, RoleSessionName="gateway", ExternalId="x1")
        sts.close()

    texts = {"role": ROLE, "session": "gateway", "region": EU}
    texts |= {"assume_role": ROLE, "assume_session": "gateway", "assume_external_id": "x1"}
    ours = run(terms("aws_web_identity", issuers.url, **texts), token_file.read_text())
    assert [call["kind"] for call in compare(issuers, theirs, ours)] == ["aws_web_identity", "assume"]


def test_aws_container_and_instance(
    issuers: SimulatedIssuers, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{issuers.url}/aws/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token_file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    provider = botocore.credentials.ContainerProvider()
    ours = run(terms("aws_container", issuers.url, path="/v1/credentials"), authorization=token_file.read_text())
    compare(issuers, lambda: provider.load().get_frozen_credentials(), ours)
    issuers.calls.clear()
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    fetcher = InstanceMetadataFetcher(base_url=f"{issuers.url}/aws/")
    calls = compare(issuers, fetcher.retrieve_iam_role_credentials, run(terms("aws_instance", issuers.url)))
    assert [call["method"] for call in calls] == ["PUT", "GET", "GET"]


def test_google_metadata(issuers: SimulatedIssuers) -> None:
    request = GoogleRequest(issuers)
    theirs = google.auth.compute_engine.Credentials()
    theirs._universe_domain_cached = True
    account = "/computeMetadata/v1/instance/service-accounts/default/token"

    def refreshed() -> None:
        # Its first request asks for the names of the account, which no token needs.
        google.auth.compute_engine._metadata.get_service_account_token(request, "default")

    [call] = compare(issuers, refreshed, run(terms("google_metadata", issuers.url)))
    assert call["path"] == f"/google{account}"
    issuers.calls.clear()
    audience = "https://iap.example.de"

    def identity() -> None:
        path, query = "instance/service-accounts/default/identity", {"audience": audience, "format": "full"}
        google.auth.compute_engine._metadata.get(request, path, params=query)

    compare(issuers, identity, run(terms("google_metadata", issuers.url, audience=audience)))


@pytest.mark.parametrize("impersonate", ["", ACCOUNT])
def test_google_federation(issuers: SimulatedIssuers, token_file: Path, impersonate: str) -> None:
    of_iam = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts"
    url = f"{of_iam}/{ACCOUNT}:generateAccessToken" if impersonate else None
    theirs = google.auth.identity_pool.Credentials(
        audience=POOL,
        subject_token_type="urn:ietf:params:oauth:token-type:jwt",
        token_url="https://sts.googleapis.com/v1/token",
        credential_source={"file": str(token_file)},
        service_account_impersonation_url=url,
        scopes=["https://www.googleapis.com/auth/cloud-platform"],
    )
    texts = {"audience": POOL} | ({"impersonate": impersonate} if impersonate else {})
    ours = run(terms("google_federation", issuers.url, **texts), token_file.read_text())
    compare(issuers, lambda: theirs.refresh(GoogleRequest(issuers)), ours)


def test_google_federation_with_a_role_of_aws(issuers: SimulatedIssuers) -> None:
    irsa = terms("aws_web_identity", issuers.url, role=ROLE, session="gateway", region=EU)
    keys = asyncio.run(run(irsa, subject())).text
    issuers.calls.clear()
    theirs = google.auth.aws.Credentials(
        audience=POOL,
        subject_token_type="urn:ietf:params:aws:token-type:aws4_request",
        token_url="https://sts.googleapis.com/v1/token",
        aws_security_credentials_supplier=Supplier(keys),
        scopes=["https://www.googleapis.com/auth/cloud-platform"],
    )
    ours = run(terms("google_federation", issuers.url, irsa, audience=POOL), keys)
    compare(issuers, lambda: theirs.refresh(GoogleRequest(issuers)), ours)


def test_oauth_client_credentials(issuers: SimulatedIssuers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    session = oauth.OAuth2Session(client=oauth_clients.BackendApplicationClient("app", scope="chat"))
    session.trust_env = False

    def theirs() -> None:
        auth = requests.auth.HTTPBasicAuth("app", "s3cret")
        session.fetch_token(f"{issuers.url}/oauth/token", auth=auth, audience="a", resource="r")

    texts = {"client": "app", "client_secret": "s3cret", "path": "/token", "scope": "chat"}
    ours = run(terms("oauth", issuers.url, audience="a", resource="r", **texts))
    compare(issuers, theirs, ours)
    assert issuers.calls[0]["headers"]["authorization"].startswith("Basic ")  # type: ignore[index]
