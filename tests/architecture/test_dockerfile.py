"""The Dockerfile: its base image can be pinned, and the runtime image has no build tools."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
IMAGE = "python:3.13-slim${PYTHON_DIGEST:+@$PYTHON_DIGEST}"


EXTRAS = frozenset({"google", "otel", "redaction", "stores", "zstd"})


def needed_by(package: str, extras: Collection[str], found: set[str]) -> set[str]:
    """Return the names of all packages that an installed package needs on Linux with these extras."""
    for line in requires(package) or []:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        is_used = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra, "sys_platform": "linux"}) for extra in ("", *extras)
        )
        if is_used and (name not in found or requirement.extras):
            found.add(name)
            needed_by(name, requirement.extras, found)
    return found


def test_runtime_image_has_only_what_the_gateway_needs() -> None:
    lock = (ROOT / "locks/image.lock").read_text("utf-8")
    locked = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==", lock, re.MULTILINE)}
    (removed,) = re.findall(r"uninstall --yes (.+?) \\", DOCKERFILE)
    assert set(removed.split()) == locked - needed_by("assistant-gateway", EXTRAS, set())


def test_both_stages_use_one_base_image_with_an_optional_digest() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == [IMAGE, IMAGE]
    before_stages = DOCKERFILE.partition("FROM ")[0]
    assert re.findall(r"^ARG (\w+)=(|sha256:[0-9a-f]{64})$", before_stages, re.MULTILINE)[0][0] == "PYTHON_DIGEST"
    page = (ROOT / "docs/operate/get.md").read_text("utf-8")
    for text in ("--build-arg PYTHON_DIGEST=", "docker buildx imagetools inspect python:3.13-slim"):
        assert text in page
