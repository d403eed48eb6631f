"""The process's own settings, `GATEWAY_*` in the environment: where it listens and what it logs.

What may differ between two cells of one company is here; what is policy is in the config file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_SECRET = ("admin_token",)


class SettingsError(ValueError):
    """Settings that can't be used; the message has a line for each."""


class Settings(BaseSettings):
    """Read once at start."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", env_ignore_empty=True, extra="ignore")

    config: Path = Field(Path("config/gateway.yaml"), description="The config file.")
    host: str = Field("127.0.0.1", description="The address that the public listener binds.")
    port: int = Field(8080, ge=0, le=65535, description="Its port; 0 takes a free one.")
    admin_host: str = Field("127.0.0.1", description="The address of the admin listener.")
    admin_port: int = Field(8081, ge=0, le=65535, description="Its port; 0 takes a free one.")
    admin_token: SecretStr | None = Field(None, min_length=16, description="What a request to it must bring.")
    workers: int = Field(1, ge=1, le=256, description="Processes that serve; more than one have a supervisor.")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="`auto`: text on a terminal, else JSON.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged at least.")
    transport: Literal["lean", "httpx"] = Field("lean", description="Our own pool, or httpx's in its place.")
    state_dir: Path | None = Field(
        None, description="A directory for what outlives a request; what needs one is off without it."
    )
    receipt_key: Path | None = Field(
        None, description="A file with the Ed25519 private key that signs receipts; unsigned without it."
    )
    max_requests: int = Field(
        10_000, ge=1, description="Chat requests that one worker has at once; one more gets 503 `overloaded`."
    )
    grace_s: float = Field(
        30.0, gt=0, allow_inf_nan=False, description="Seconds that running requests get to finish after SIGTERM."
    )


def read_settings(given: Mapping[str, Any]) -> Settings:
    """The settings of the environment, with those of the command line before them; raises SettingsError."""
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0])
            source = f"--{name.replace('_', '-')}" if name in given else f"GATEWAY_{name.upper()}"
            shown = "" if name in _SECRET else f" is {problem['input']!r}"
            told = f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
            if problem["type"] == "too_short":  # pydantic counts a secret's characters as "items"
                told = "it must have at least {min_length} characters, not {actual_length}".format(**problem["ctx"])
            lines.append(f"{source}{shown}: {told}")
        raise SettingsError("\n".join(lines)) from None
