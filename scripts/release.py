"""Make a release: `make release VERSION=0.2.0`.

It moves the entries of the changelog's section *Unreleased* to the new version, writes the version where it is stated,
and puts wheel, sdist, SBOM (CycloneDX) and checksums into `dist/`. Then it commits and tags. If a step fails, the files
are as they were. Nothing is published.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
_UNRELEASED = "## [Unreleased]\n"
# Where the version is stated: the file, and the pattern whose first group is followed by the version.
STATED = (
    ("pyproject.toml", r'(?m)^(version = ")[^"]+'),
    ("gateway/__init__.py", r'(?m)^(__version__ = ")[^"]+'),
    ("deploy/ci/assistant-gateway.yml", r'(?m)^(  VERSION: ")[^"]+'),
    ("deploy/helm/assistant-gateway/Chart.yaml", r"(?m)^(version: ).+"),
    ("deploy/helm/assistant-gateway/Chart.yaml", r'(?m)^(appVersion: ")[^"]+'),
)


class ReleaseError(Exception):
    """The release cannot be made. The message states the reason and the remedy."""


def main() -> int:
    """Make the release that the command line names. Return the exit status."""
    try:
        print(make_release(ROOT, sys.argv[1] if len(sys.argv) > 1 else "", datetime.now(UTC)))
    except ReleaseError as error:
        print(f"make release: {error}", file=sys.stderr)
        return 1
    return 0


def make_release(root: Path, version: str, now: datetime) -> str:
    """Make the release of a clean checkout. Return what was made, for people.

    Raises:
        ReleaseError: The version, the checkout or a step of the build is wrong.
    """
    previous = stated_version(root)
    _check(root, version, previous)
    files = [root / path for path in dict.fromkeys(("CHANGELOG.md", *(path for path, _ in STATED)))]
    before = {path: path.read_bytes() for path in files}
    dist = root / "dist"
    try:
        (root / "CHANGELOG.md").write_text(
            released_changelog((root / "CHANGELOG.md").read_text("utf-8"), version, f"{now:%Y-%m-%d}"), "utf-8"
        )
        for path, pattern in STATED:
            text, found = re.subn(pattern, rf"\g<1>{version}", (root / path).read_text("utf-8"))
            if found != 1:
                raise ReleaseError(f"{path} states the version {found} times instead of once")
            (root / path).write_text(text, "utf-8")
        shutil.rmtree(dist, ignore_errors=True)
        _build(root, version, now)
    except (ReleaseError, OSError):
        for file, content in before.items():
            file.write_bytes(content)
        raise
    _run(root, "git", "commit", "--quiet", "--message", f"Release {version}", "--", *map(str, files))
    _run(root, "git", "tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    names = "\n".join(f"  dist/{path.name}" for path in sorted(dist.iterdir()))
    return f"Release {version}:\n{names}\nIt is committed and tagged as v{version}. To publish: git push --follow-tags"


def stated_version(root: Path) -> str:
    """Return the version in `pyproject.toml`."""
    found = re.search(r'(?m)^version = "([^"]+)"', (root / "pyproject.toml").read_text("utf-8"))
    if found is None:
        raise ReleaseError("pyproject.toml states no version")
    return found[1]


def released_changelog(text: str, version: str, day: str) -> str:
    """Return the changelog with the unreleased entries below the new version.

    Raises:
        ReleaseError: There is nothing to release.
    """
    head, found, rest = text.partition(_UNRELEASED)
    section = re.split(r"(?m)^## \[", rest, maxsplit=1)[0]
    if not found or not re.search(r"(?m)^- ", section):
        raise ReleaseError("the section [Unreleased] of CHANGELOG.md has no entry")
    return f"{head}{_UNRELEASED}\n## [{version}] - {day}\n{rest}"


def _check(root: Path, version: str, previous: str) -> None:
    if re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", version) is None:
        raise ReleaseError("name the version as in: make release VERSION=0.2.0")
    if _numbers(version) <= _numbers(previous):
        raise ReleaseError(f"{version} is not newer than {previous}")
    if changes := _run(root, "git", "status", "--porcelain"):
        raise ReleaseError(f"commit or remove these changes first:\n{changes.rstrip()}")
    if _run(root, "git", "tag", "--list", f"v{version}"):
        raise ReleaseError(f"the tag v{version} exists")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _build(root: Path, version: str, now: datetime) -> None:
    """Write the files of `dist/`. The same commit on the same day gives the same bytes of wheel and sdist."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    _run(root, sys.executable, "-m", "build", "--no-isolation", epoch=str(int(midnight.timestamp())))
    dist = root / "dist"
    sbom = dist / f"assistant_gateway-{version}.cdx.json"
    options = ("--pyproject", "pyproject.toml", "--mc-type", "application", "--output-reproducible", "--of", "JSON")
    _run(root, sys.executable, "-m", "cyclonedx_py", "requirements", "locks/image.lock", *options, "-o", str(sbom))
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(dist.iterdir())]
    (dist / "SHA256SUMS").write_text("".join(sums), "utf-8")


def _run(root: Path, *command: str, epoch: str | None = None) -> str:
    environ = os.environ if epoch is None else {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    done = subprocess.run(  # noqa: S603 -- the commands of this script
        command, cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ReleaseError(f"`{' '.join(command[:4])} …` failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
