"""`gateway doctor --installed`: compare the files that run with the lists of the packages that they came in."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from gateway.cli.check_result import CheckResult
from gateway.operator_errors import CommandError

_NAME = "assistant-gateway"
_PINNED = re.compile(r"(?m)^([A-Za-z0-9._-]+)==([^\s;]+)")


def installed_problems(release: Path | None) -> Iterator[CheckResult]:
    """Report what differs in this installation, as `site_problems` does.

    Raises CommandError if the gateway is not installed from a wheel, or the folder has no release.
    """
    root = Path(__file__).parents[2]
    try:
        home = Path(str(distribution(_NAME).locate_file("")))
    except PackageNotFoundError:
        home = None
    if home != root or not any(root.glob("assistant_gateway-*.dist-info")):
        raise CommandError(f"the gateway runs from {root}, and no wheel was installed there: install the wheel")
    yield from site_problems(root, release)


def site_problems(root: Path, release: Path | None) -> Iterator[CheckResult]:
    """Report each file of a folder of packages that is not as its package lists it, and what runs at each start.

    `release` is the folder of a release, whose wheel and locked versions then judge too: an attacker who changes an
    installed file can change the list next to it. Compiled files (`__pycache__`) are not compared.
    """
    packages = {_named(it.name): it for it in distributions(path=[str(root)])}
    if release is not None:
        yield from _differing(root, _of_wheel(release), "the wheel of the release")
        locked = (release / "requirements.txt").read_text("utf-8")
        pinned = {_named(name): version for name, version in _PINNED.findall(locked)}
        for name, package in packages.items():
            if name in pinned and package.version != pinned[name]:
                yield _problem(name, f"is {package.version}, and the release has {pinned[name]}")
    listed: set[Path] = set()
    for name, package in packages.items():
        files = {str(it): f"{it.hash.mode}={it.hash.value}" if it.hash else "" for it in package.files or ()}
        yield from _differing(root, files, f"the list of {name}")
        listed |= {root / file for file in files}
        for file in (it for it in files if it.endswith(".pth")):
            yield CheckResult("warning", file, f"{name} runs it at each start of Python", "remove it if not needed")
    for path in sorted(root.rglob("*")):
        is_file = path.is_file() or path.is_symlink()
        if is_file and path not in listed and "__pycache__" not in path.relative_to(root).parts:
            yield _problem(path.relative_to(root), "is in no list of a package")


def _differing(root: Path, files: Mapping[str, str], judge: str) -> Iterator[CheckResult]:
    for name, expected in files.items():
        mode, _, value = expected.partition("=")
        try:
            if expected and _encoded(hashlib.new(mode, (root / name).read_bytes()).digest()) != value:
                yield _problem(name, f"is not as in {judge}")
        except OSError as error:
            yield _problem(name, f"can't be read ({error.strerror}), and {judge} has it")


def _problem(subject: object, message: str) -> CheckResult:
    return CheckResult("error", str(subject), message, "install the release again, in a new environment")


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _of_wheel(release: Path) -> dict[str, str]:
    """Return the files of the release's wheel with their hashes. The list of the wheel itself has none."""
    try:
        (path,) = release.glob("assistant_gateway-*.whl")
        with ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if not name.endswith(("/", ".dist-info/RECORD"))]
            digests = {name: hashlib.sha256(wheel.read(name)).digest() for name in names}
    except (ValueError, OSError, BadZipFile):
        raise CommandError(f"{release} is not the folder of a release: it has no wheel that can be read") from None
    return {name: f"sha256={_encoded(it)}" for name, it in digests.items()}


def _named(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
