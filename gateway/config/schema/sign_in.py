"""Shape of `sign_ins`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from gateway.config.field_types import Section
from gateway.config.schema.routing import ProxySection
from gateway.model.deployment import TlsFiles
from gateway.model.section import Sensitive
from providers.json_values import as_map, read_map
from providers.sign_in.kinds import sign_in_kinds

_Word = Annotated[str, Sensitive("`sign_ins`", is_secret=False, is_shown=True)]
_Text = Annotated[str | None, Sensitive("`sign_ins`", is_secret=False, is_shown=True)]


class AssumeSection(Section):
    """The role that AWS credentials assume."""

    role: _Word = Field(description="The ARN of the role.")
    session: _Word = Field("gateway", description="The name of the session, which AWS's audit log shows.")
    external_id: _Text = Field(None, description="The external id that the role's policy asks for.")


class SignInSection(Section):
    """How the gateway gets tokens as a workload, without keys. Each kind has keys of its own."""

    kind: Literal[
        "azure_workload",
        "azure_managed",
        "aws_web_identity",
        "aws_container",
        "aws_instance",
        "google_metadata",
        "google_federation",
        "oauth",
    ] = Field(description="The kind, which determines the issuer of the tokens and the further keys.")
    tenant: _Text = Field(None, description="The tenant of Entra ID. Default: AZURE_TENANT_ID.")
    client: _Text = Field(
        None, description="The id of the client. Default for `azure_workload`: AZURE_CLIENT_ID; else none."
    )
    client_secret: Annotated[str | None, Sensitive("`sign_ins`")] = Field(
        None, description="The secret of the client, as ${NAME} or ${file:/path}.", repr=False
    )
    token_file: _Text = Field(
        None,
        description="The absolute path of the file with the workload's own token. It is read for each exchange. "
        "Defaults: AZURE_FEDERATED_TOKEN_FILE, AWS_WEB_IDENTITY_TOKEN_FILE.",
    )
    source: str | None = Field(
        None, alias="from", description="In place of `token_file`: the sign-in whose token is exchanged."
    )
    cloud: Literal["public", "us", "china"] = Field("public", description="The cloud of Entra ID.")
    scope: _Text = Field(
        None, description="The scope of the token. Default at Azure: https://cognitiveservices.azure.com/.default."
    )
    role: _Text = Field(None, description="The ARN of the role. Default: AWS_ROLE_ARN.")
    session: _Text = Field(None, description="The name of the session. Default: AWS_ROLE_SESSION_NAME, else `gateway`.")
    region: _Text = Field(None, description="The region whose STS is called, such as eu-central-1.")
    assume: AssumeSection | None = Field(None, description="The role that the AWS credentials assume.")
    audience: _Text = Field(None, description="The audience of the token.")
    impersonate: _Text = Field(None, description="The e-mail address of the service account to act as.")
    url: _Text = Field(None, description="The token endpoint of your OAuth server.")
    territory: str | None = Field(None, description="Where your OAuth server is.")
    grant: Literal["client_credentials"] = Field("client_credentials", description="The grant (RFC 6749).")
    resource: _Text = Field(None, description="The resource of the token (RFC 8707).")
    header: Literal["authorization", "proxy-authorization"] = Field(
        "authorization",
        description="The header of the token. With `proxy-authorization`, a deployment has its `api_key` too.",
    )
    global_host: Literal["accepted"] | None = Field(
        None, description="Accepts a token host that may be anywhere, where none in a region exists."
    )
    proxy: ProxySection | None = Field(None, description="The HTTP proxy through which the issuer is called.")
    tls: TlsFiles | None = Field(None, description="Own authorities and a client's certificate for the issuer.")
    endpoint: str | None = Field(
        None, description="A simulated issuer on this machine, such as http://127.0.0.1:8900/azure. For tests."
    )

    @property
    def insecure(self) -> bool:
        """No issuer is called in clear text."""
        return False


def environment_of(values: Mapping[str, object]) -> Iterator[str]:
    """Yield a reference to each variable of the environment that stands in for a key of the sign-ins."""
    for section in map(as_map, read_map(values, "sign_ins").values()):
        kind = sign_in_kinds().get(str(section.get("kind")))
        if kind is None:
            continue
        for key, name in kind.environment.items():
            if key not in section and not (key == "token_file" and "from" in section):
                yield f"${{{name}}}"
        yield from (f"${{{name}}}" for name in kind.variables)
