"""Pages, messages and files install the packages of others by name, and the gateway only from its wheel."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway.config.extras import EXTRAS

ROOT = Path(__file__).parents[2]
OTHERS = {"openai"}  # for clients
PLACES = ("docs", "deploy", "gateway", "providers", "evaluation", "README.md", "CONTRIBUTING.md", "Dockerfile")
_INSTALL = re.compile(r"\bpip[\w ./-]* install((?: +['\"]?[^\s`'\";)&\\]+| *\n(?=hypothesis))+)")


def test_gateway_is_never_installed_by_its_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = [
        *project["dependencies"],
        *(it for extra in project["optional-dependencies"].values() for it in extra),
    ]
    known = {canonicalize_name(Requirement(it).name) for it in requirements} - {"assistant-gateway"}
    seen = {extra.package for extra in EXTRAS.values()}
    assert seen <= known
    for place in PLACES:
        for path in [ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*"):
            if not path.is_file() or path.suffix in (".pyc", ".png", ".wav") or path.name == "CHANGELOG.md":
                continue
            for words in _INSTALL.findall(path.read_text("utf-8")):
                for word in re.sub(r"-(?:-dest|-find-links|r) \S+|#.*|['\"]", "", words).split():
                    if re.fullmatch(r"[a-z][\w-]*(\[.*|[=<>].*)?", word):
                        name = canonicalize_name(re.split(r"[\[=<>]", word)[0])
                        seen.add(name)
                        assert name in known | OTHERS, f"{path}: {word!r}"
    assert {"asyncpg", "libvalkey", "botocore", "google-auth", "opentelemetry-proto", "scipy", "pytest"} <= seen
