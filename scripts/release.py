"""Make a release: `make release VERSION=0.2.0 KEY=release.pem`, or the files of a release from any commit: `make dist`.

A release moves the entries of the changelog's section *Unreleased* to the new version, writes the version where it is
stated, and puts wheel, sdist, the locked packages with their hashes and the SBOM (CycloneDX) into `dist/`. Then it
commits and tags, and adds what states where the files are from: the provenance (an in-toto statement, SLSA 1.0), the
checksums of all files, and the signature of the checksums. If a step before the commit fails, the files are as they
were. Nothing is published. Nothing of the files depends on the folder, the user or the time of a build, so that
`make dist` at the tag makes the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from gateway.signing import KeyUnusable, Signer
from scripts.facts import ended
from scripts.report import is_of

ROOT = Path(__file__).parents[1]
_UNRELEASED = "## [Unreleased]\n"
_REPORT = "docs/prove/report.json"
# Where the version is stated: the file, and the pattern whose first group is followed by the version.
_PACKAGE = (("pyproject.toml", r'(?m)^(version = ")[^"]+'), ("gateway/__init__.py", r'(?m)^(__version__ = ")[^"]+'))
STATED = (
    *_PACKAGE,
    ("deploy/helm/assistant-gateway/Chart.yaml", r"(?m)^(version: ).+"),
    ("deploy/helm/assistant-gateway/Chart.yaml", r'(?m)^(appVersion: ")[^"]+'),
)
# Where the version is part of what users apply or copy: each name of the release, and the label of a manifest.
_NAMED = r'(assistant[-_]gateway[-:]|app\.kubernetes\.io/version: ")\d+\.\d+\.\d+'
NAMING = (
    *(f"deploy/kubernetes/{name}.yaml" for name in ("aks", "any-cluster", "eks", "gke")),
    *("deploy/helm/README.md", "docs/operate/get.md"),
)


class ReleaseError(Exception):
    """The release cannot be made. The message states the reason and the remedy."""


def main() -> int:
    """Make the release that the command line names, or with `--dist` its files only. Return the exit status."""
    parser = argparse.ArgumentParser(prog="make release")
    parser.add_argument("version", nargs="?", default="")
    parser.add_argument("--dist", action="store_true")
    parser.add_argument("--key", type=Path)
    options = parser.parse_args()
    try:
        signer = Signer.read(options.key) if options.key is not None else None
        if options.dist:
            print(make_dist(ROOT, signer))
        else:
            print(make_release(ROOT, options.version, datetime.now(UTC), signer))
    except (ReleaseError, KeyUnusable) as error:
        print(f"make release: {error}", file=sys.stderr)
        return 1
    return 0


def make_release(root: Path, version: str, now: datetime, signer: Signer | None) -> str:
    """Make the release of a clean checkout. Return what was made, for people.

    Raises:
        ReleaseError: The version, the checkout or a step of the build is wrong.
    """
    previous = stated_version(root)
    _check(root, version, previous)
    if problems := ended(root, now.date()):
        raise ReleaseError("has ended, and nothing replaced it:\n" + "\n".join(problems))
    if signer is None:
        raise ReleaseError(
            "name the key that signs: KEY=release.pem (`gateway key new --ed25519 release.pem` makes one)"
        )
    if not is_of(root / _REPORT, root):
        fix = "run `make report` (with ARGS=--small: half an hour), and commit it"
        raise ReleaseError(f"{_REPORT} is of other code: {fix}")
    files = [root / path for path in dict.fromkeys(("CHANGELOG.md", *(path for path, _ in STATED), *NAMING))]
    with _restored(files, always=False):
        (root / "CHANGELOG.md").write_text(
            released_changelog((root / "CHANGELOG.md").read_text("utf-8"), version, f"{now:%Y-%m-%d}"), "utf-8"
        )
        _state(root, version, STATED)
        for path in NAMING:
            text = (root / path).read_text("utf-8")
            (root / path).write_text(re.sub(_NAMED, rf"\g<1>{version}", text), "utf-8")
        _build(root, version)
    _run(root, "git", "commit", "--quiet", "--message", f"Release {version}", "--", *map(str, files))
    _run(root, "git", "tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    _attest(root, version, signer)
    done = f"It is committed and tagged as v{version}. To publish: git push --follow-tags"
    return f"Release {version}:\n{_listed(root)}\n{done}"


def make_dist(root: Path, signer: Signer | None = None) -> str:
    """Make the files of a release from the checkout as it is. Return what was made, for people.

    Between releases the version names the commit, such as `0.2.0+g1a2b3c4d5e6f`, with `.changed` for a changed tree. A
    conformance report of other code is left out.

    Raises:
        ReleaseError: A step of the build is wrong.
    """
    version = stated_version(root)
    changed = ".changed" if _run(root, "git", "status", "--porcelain") else ""
    if changed or f"v{version}" not in _run(root, "git", "tag", "--points-at", "HEAD").split():
        version += f"+g{_run(root, 'git', 'rev-parse', '--short=12', 'HEAD').strip()}{changed}"
    with _restored([root / path for path, _ in _PACKAGE], always=True):
        _state(root, version, _PACKAGE)
        _build(root, version)
    _attest(root, version, signer)
    left_out = f"\nwithout {_REPORT}, which is of other code: run `make report`"
    return f"{version}:\n{_listed(root)}{'' if is_of(root / _REPORT, root) else left_out}"


@contextmanager
def _restored(files: list[Path], *, always: bool) -> Iterator[None]:
    """Write the files back as they were: always, or after a failure."""
    before = {path: path.read_bytes() for path in files}
    is_done = False
    try:
        yield
        is_done = not always
    finally:
        if not is_done:
            for file, content in before.items():
                file.write_bytes(content)


def _state(root: Path, version: str, stated: Sequence[tuple[str, str]]) -> None:
    for path, pattern in stated:
        text, found = re.subn(pattern, rf"\g<1>{version}", (root / path).read_text("utf-8"))
        if found != 1:
            raise ReleaseError(f"{path} states the version {found} times instead of once")
        (root / path).write_text(text, "utf-8")


def _listed(root: Path) -> str:
    return "\n".join(f"  dist/{path.name}" for path in sorted((root / "dist").iterdir()))


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


def _build(root: Path, version: str) -> None:
    """Write the files of `dist/` that are the same wherever and whenever the commit is built."""
    dist = root / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    _run(root, sys.executable, "-m", "build", "--no-isolation", epoch=_epoch(root, version))
    shutil.copyfile(root / "locks/image.lock", dist / "requirements.txt")
    shutil.copyfile(root / "locks/runtime.lock", dist / "requirements-minimal.txt")
    if is_of(root / _REPORT, root):
        for path in (root / _REPORT, (root / _REPORT).with_suffix(".md")):
            shutil.copyfile(path, dist / f"assistant_gateway-{version}.{path.name}")
    sbom = dist / f"assistant_gateway-{version}.cdx.json"
    options = ("--pyproject", "pyproject.toml", "--mc-type", "application", "--output-reproducible", "--of", "JSON")
    _run(root, sys.executable, "-m", "cyclonedx_py", "requirements", "locks/image.lock", *options, "-o", str(sbom))


def _epoch(root: Path, version: str) -> str:
    """Return the time that the files state: the day of the release in the changelog, or the time of the commit."""
    heading = rf"(?m)^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$"
    released = re.search(heading, (root / "CHANGELOG.md").read_text("utf-8"))
    if released is None:
        return _run(root, "git", "log", "-1", "--format=%ct").strip()
    return str(int(datetime.fromisoformat(f"{released[1]}T00:00Z").timestamp()))


def _attest(root: Path, version: str, signer: Signer | None) -> None:
    """Write provenance, checksums and, with a key, their signature."""
    dist = root / "dist"
    commit = _run(root, "git", "rev-parse", "HEAD").strip()
    tools = {"name": "locks/sdks.lock", "digest": {"sha256": _sha256(root / "locks/sdks.lock")}}
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": it.name, "digest": {"sha256": _sha256(it)}} for it in sorted(dist.iterdir())],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:assistant-gateway:make-dist:1",
                "externalParameters": {"version": version},
                "resolvedDependencies": [{"name": "source", "digest": {"gitCommit": commit}}, tools],
            },
            "runDetails": {"builder": {"id": f"urn:assistant-gateway:key:{signer.public.id if signer else 'none'}"}},
        },
    }
    provenance = dist / f"assistant_gateway-{version}.provenance.json"
    provenance.write_text(json.dumps(statement, indent=1) + "\n", "utf-8")
    sums = "".join(f"{_sha256(path)}  {path.name}\n" for path in sorted(dist.iterdir()))
    (dist / "SHA256SUMS").write_text(sums, "utf-8")
    if signer is not None:
        (dist / "SHA256SUMS.sig").write_bytes(signer.sign_bytes(sums.encode()))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
