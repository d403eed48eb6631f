"""The settings of one process: `GATEWAY_*` in the environment, for listeners, logs and directories.

Settings may differ between cells of one company. Policy is in the config file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_LEAST = 16
_SECRET = ("admin_token", "viewer_token", "console_proxy_secret")
_HEADER = r"^[A-Za-z0-9\-]{1,64}$"
_ROLES = r"^\s*[^=,]+=(viewer|operator|admin)\s*(,\s*[^=,]+=(viewer|operator|admin)\s*)*$"


def versions_of(secret: SecretStr | None) -> tuple[str, ...]:
    """Return the versions of a secret of the environment, the newer one first. The character `|` is between them."""
    return tuple(secret.get_secret_value().split("|")) if secret is not None else ()


def _one_or_two(secret: SecretStr) -> SecretStr:
    versions = versions_of(secret)
    if not 1 <= len(versions) <= 2:
        raise ValueError("it must be one text, or the new and the former one with `|` between them")
    if (shortest := min(map(len, versions))) < _LEAST:
        raise ValueError(f"it must have at least {_LEAST} characters, not {shortest}")
    return secret


_Versions = Annotated[SecretStr, AfterValidator(_one_or_two)]


class SettingsError(ValueError):
    """Settings that cannot be used. The message has one line for each."""


class Settings(BaseSettings):
    """The settings, read once at start."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", env_ignore_empty=True, extra="ignore")

    config: Path = Field(Path("config/gateway.yaml"), description="The config file.")
    host: str = Field("127.0.0.1", description="The address that the public listener binds.")
    port: int = Field(8080, ge=0, le=65535, description="The port of the public listener; 0 takes a free one.")
    admin_host: str = Field("127.0.0.1", description="The address of the admin listener.")
    admin_port: int = Field(8081, ge=0, le=65535, description="The port of the admin listener; 0 takes a free one.")
    admin_token: _Versions | None = Field(
        None,
        description="The token that requests to the admin listener must send, at least 16 characters: one, or the new "
        "and the former one with `|` between them. Required unless the address is a loopback address.",
    )
    viewer_token: _Versions | None = Field(
        None, description="A token that may only read, for Prometheus. It needs `GATEWAY_ADMIN_TOKEN`."
    )
    console_host: str = Field(
        "127.0.0.1",
        description="The address of the console. Another than loopback needs `GATEWAY_CONSOLE_URL` with https.",
    )
    console_port: int | None = Field(
        None, ge=0, le=65535, description="The port of the console; 0 takes a free one. Without it there is no console."
    )
    console_url: str | None = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+/?$",
        description="The public address of the console, such as `https://console.example.com`. No other is answered.",
    )
    console_proxy_secret: _Versions | None = Field(
        None,
        description="The secret of an authenticating proxy, in `x-gateway-proxy-secret`. It replaces sign-in by token.",
    )
    console_user_header: str = Field(
        "x-forwarded-user", pattern=_HEADER, description="The proxy's header with the name of the user."
    )
    console_groups_header: str = Field(
        "x-forwarded-groups",
        pattern=_HEADER,
        description="The proxy's header with the user's groups, separated by commas.",
    )
    console_roles: str | None = Field(
        None,
        pattern=_ROLES,
        description="The roles of groups: `GROUP=ROLE`, separated by commas. Roles are viewer, operator and admin. "
        "Without it, the proxy sends the company's token, and `roles` of its issuer decides.",
    )
    workers: int = Field(1, ge=1, le=256, description="The number of processes that share the port.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`auto`: text in a terminal (in colours unless `NO_COLOR` is set), JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The lowest level to log.")
    state_dir: Path | None = Field(None, description="The state directory. Without it, features that need it are off.")
    require_state: bool = Field(
        False, description="Refuse to start with protected regions if no earlier version is known to compare them with."
    )
    receipt_key: Path | None = Field(
        None, description="A file with the Ed25519 private key that signs receipts; unsigned without it."
    )
    instance: str | None = Field(None, description="The name of this instance in the status. Default: the host's name.")
    max_requests: int = Field(
        10_000, ge=1, description="Concurrent chat requests in one worker; one more gets 503 `overloaded`."
    )
    grace_s: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds for running requests after SIGTERM. Default: `resilience.total`, and at least 30.",
    )
    drain_delay_s: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds after SIGTERM in which connections are still accepted while `/readyz` answers 503.",
    )


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Return the settings of the environment. Those of the command line (`given`) take precedence.

    Raises:
        SettingsError: A setting cannot be used.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0])
            source = f"--{name.replace('_', '-')}" if name in given else f"GATEWAY_{name.upper()}"
            shown = "" if name in _SECRET else f" is {problem['input']!r}"
            message = f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
            if "error" in problem.get("ctx", {}):  # of a check of this module
                message = str(problem["ctx"]["error"])
            lines.append(f"{source}{shown}: {message}")
        raise SettingsError("\n".join(lines)) from None
