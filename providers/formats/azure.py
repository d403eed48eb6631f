"""The paths of Azure OpenAI, which chats, embeddings and transcriptions share."""

from __future__ import annotations

from urllib.parse import quote

from providers.adapter import Target
from providers.failures import UnsupportedFeature

_AZURE_VERSION = "2024-10-21"


def azure_path(target: Target, call: str = "/chat/completions") -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return path and query for Azure's two APIs: below `/openai`, the deployment's name is part of the path."""
    base = target.base_path
    if base.endswith("/openai"):
        if target.model in ("", ".", ".."):
            raise UnsupportedFeature("model", f"the Azure deployment's name {target.model!r} cannot be part of a path")
        base = f"{base}/deployments/{quote(target.model, safe='')}"
    return f"{base}{call}", (("api-version", _AZURE_VERSION),) if "/openai/deployments/" in base else ()
