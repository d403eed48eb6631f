"""The process's own settings, `GATEWAY_*` in the environment: where it listens and what it logs.

What may differ between two cells of one company is here; what is policy is in the config file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Read once at start."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", extra="ignore")

    config: Path = Field(Path("config/gateway.yaml"), description="The config file.")
    host: str = Field("127.0.0.1", description="The address that the public listener binds.")
    port: int = Field(8080, ge=0, le=65535, description="Its port; 0 takes a free one.")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="`auto`: text on a terminal, else JSON.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged at least.")
    grace_s: float = Field(30.0, gt=0, description="Seconds that running requests get to finish after SIGTERM.")
