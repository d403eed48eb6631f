"""`make release`: what it refuses, what it changes, and what it makes."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from gateway.features.marks.policy import signer_of_pem
from gateway.signing import new_key
from scripts import release
from scripts.release import NAMING, STATED, ReleaseError, make_dist, make_release, released_changelog, stated_version
from scripts.report import code_of

ROOT = Path(__file__).parents[2]
# A later day would end facts that this checkout has.
NOW = datetime(2026, 4, 5, 6, tzinfo=UTC)
KEY, PUBLIC = new_key()
SIGNER = signer_of_pem(KEY.decode())
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")


def git(directory: Path, *words: str) -> str:
    done = subprocess.run(["git", *AUTHOR, *words], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def report_again(root: Path) -> None:
    """Make the report of a checkout one of its own code."""
    path = root / "docs/prove/report.json"
    data = json.loads(path.read_text("utf-8"))
    for step in data["steps"]:
        step["code"] = code_of(root)
    path.write_text(json.dumps(data), "utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the files that state the version."""
    for path in ("CHANGELOG.md", "docs/prove/report.json", *(path for path, _ in STATED), *NAMING):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n- New.\n\n## [0.1.0]\n\n- Old.\n", "utf-8"
    )
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "add", ".")
    report_again(tmp_path)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_entries_move_below_the_new_version() -> None:
    text = "head\n\n## [Unreleased]\n\n- New.\n\n## [0.1.0] - 2020-01-01\n\n- Old.\n"
    assert released_changelog(text, "0.2.0", "2026-04-05") == (
        "head\n\n## [Unreleased]\n\n## [0.2.0] - 2026-04-05\n\n- New.\n\n## [0.1.0] - 2020-01-01\n\n- Old.\n"
    )


@pytest.mark.parametrize("text", ["## [0.1.0]\n\n- Old.\n", "## [Unreleased]\n\nSoon.\n\n## [0.1.0]\n\n- Old.\n"])
def test_nothing_to_release_is_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match="has no entry"):
        released_changelog(text, "0.2.0", "2026-04-05")


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("", "name the version"),
        ("v9.0.0", "name the version"),
        ("9.0", "name the version"),
        ("0.0.9", "not newer"),
        (stated_version(ROOT), "not newer"),
    ],
)
def test_wrong_version_is_refused(checkout: Path, version: str, reason: str) -> None:
    with pytest.raises(ReleaseError, match=reason):
        make_release(checkout, version, NOW, None)


def test_changed_tree_is_refused_and_named(checkout: Path) -> None:
    (checkout / "new.txt").touch()
    with pytest.raises(ReleaseError, match=r"new\.txt"):
        make_release(checkout, "9.0.0", NOW, SIGNER)


def test_release_without_a_key_is_refused(checkout: Path) -> None:
    with pytest.raises(ReleaseError, match="name the key that signs"):
        make_release(checkout, "9.0.0", NOW, None)


def test_existing_tag_is_refused(checkout: Path) -> None:
    git(checkout, "tag", "v9.0.0")
    with pytest.raises(ReleaseError, match=r"tag v9\.0\.0 exists"):
        make_release(checkout, "9.0.0", NOW, SIGNER)


def test_report_of_other_code_is_refused(checkout: Path) -> None:
    """The code does not include the file that states the version: the release itself changes it."""
    stated = checkout / "gateway/__init__.py"
    for path, reason in ((checkout / "gateway/new.py", r"report\.json is of other code"), (stated, "build")):
        path.write_text(f"{path.read_text('utf-8') if path.exists() else ''}# changed\n", "utf-8")
        git(checkout, "add", ".")
        git(checkout, "commit", "--quiet", "--message", "change")
        with pytest.raises(ReleaseError, match=reason):
            make_release(checkout, "9.0.0", NOW, SIGNER)
        report_again(checkout)
        git(checkout, "commit", "--quiet", "--all", "--allow-empty", "--message", "report")


def test_failed_build_leaves_the_checkout_as_it_was(checkout: Path) -> None:
    """This checkout has no sources, so the build fails."""
    with pytest.raises(ReleaseError, match="build"):
        make_release(checkout, "9.0.0", NOW, SIGNER)
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "log", "--format=%s") == "first"


def test_failed_dist_leaves_the_checkout_as_it_was(checkout: Path) -> None:
    with pytest.raises(ReleaseError, match="build"):
        make_dist(checkout)
    assert git(checkout, "status", "--porcelain") == ""


def test_files_of_a_commit_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build takes seconds. The version is seen that it would read."""
    # Without tags, because this commit may be a release.
    git(tmp_path, "clone", "--quiet", "--depth", "1", "--no-tags", ROOT.as_uri(), "clone")
    clone, version = tmp_path / "clone", stated_version(ROOT)
    commit = git(clone, "rev-parse", "--short=12", "HEAD")
    made = f"{version}+g{commit}"
    stated: list[str] = []

    def build(root: Path, *_: object) -> None:
        (root / "dist").mkdir(exist_ok=True)
        stated.append(stated_version(root))

    monkeypatch.setattr(release, "_build", build)
    assert make_dist(clone).startswith(f"{made}:\n")
    assert git(clone, "status", "--porcelain") == ""
    (clone / "notes.txt").touch()
    assert make_dist(clone).startswith(f"{made}.changed:\n")
    assert git(clone, "status", "--porcelain") == "?? notes.txt"
    (clone / "notes.txt").unlink()
    git(clone, "tag", f"v{version}")
    assert make_dist(clone).startswith(f"{version}:\n")
    assert stated == [made, f"{made}.changed", version]
    assert [str(Version(one)) for one in stated] == stated, "as a build writes them"


def verified(dist: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the lines of the page that verify a release. The public key is next to the folder."""
    page = (ROOT / "docs/operate/get.md").read_text("utf-8")
    lines = re.findall(r"(?m)^    ((?:openssl|sha256sum|!) .*)$", page)
    assert 1 < len(lines) <= 10
    return subprocess.run(["sh", "-e", "-c", "\n".join(lines)], cwd=dist, capture_output=True)


def _another_user() -> list[str]:
    """Return the words that run a command as another user, or none where the kernel allows that to no one."""
    words = ["unshare", "--user", "--map-user=1234", "--map-group=1234"]
    try:
        return words if subprocess.run([*words, "true"], capture_output=True).returncode == 0 else []
    except OSError:
        return []


def _built_again(clone: Path, folder: Path) -> dict[str, bytes]:
    """Build a commit in another folder, at another time, as another user. Return the files."""
    (folder / "key.pem").write_bytes(KEY)
    (folder / "key.pem").chmod(0o600)
    again = folder / "of/another"
    shutil.copytree(clone, again, ignore=shutil.ignore_patterns("dist"), symlinks=True)
    for path in again.rglob("*"):  # as if it were cloned years later
        os.utime(path, (1_900_000_000, 1_900_000_000), follow_symlinks=False)
    other = {"HOME": str(folder), "USER": "other", "TZ": "Asia/Shanghai", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    command = ["sh", "-c", 'umask 077; exec "$@"', "-", *_another_user(), sys.executable, "-m", "scripts.release"]
    command += ["--dist", "--key", str(folder / "key.pem")]
    subprocess.run(command, cwd=again, env=os.environ | other, check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in (again / "dist").iterdir()}


@pytest.mark.slow("builds a release twice and makes an environment")
def test_release_is_made_installed_into_a_clean_environment_and_answers(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    git(tmp_path, "clone", "--quiet", "--depth", "1", ROOT.as_uri(), "clone")
    clone, dist = tmp_path / "clone", tmp_path / "clone/dist"
    git(clone, "config", "user.name", "a")
    git(clone, "config", "user.email", "a@example.com")
    log = clone / "CHANGELOG.md"
    head, heading, released = log.read_text("utf-8").partition("## [Unreleased]\n")
    log.write_text(f"{head}{heading}\n- Something to release, also just after a release.\n{released}", "utf-8")
    report_again(clone)
    git(clone, "commit", "--quiet", "--all", "--message", "Change something")
    make_release(clone, "9.0.0", NOW, SIGNER)
    names = sorted(path.name for path in dist.iterdir())
    assert names == [
        "SHA256SUMS",
        "SHA256SUMS.sig",
        "assistant_gateway-9.0.0-py3-none-any.whl",
        "assistant_gateway-9.0.0.cdx.json",
        "assistant_gateway-9.0.0.provenance.json",
        "assistant_gateway-9.0.0.report.json",
        "assistant_gateway-9.0.0.report.md",
        "assistant_gateway-9.0.0.tar.gz",
        "requirements-minimal.txt",
        "requirements.txt",
    ]
    (tmp_path / "release.pub.pem").write_bytes(PUBLIC.pem)
    copy = shutil.copytree(dist, tmp_path / "files")
    assert verified(copy).returncode == 0
    statement = json.loads((dist / names[4]).read_text("utf-8"))
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {it["name"]: it["digest"]["sha256"] for it in statement["subject"]}
    assert subjects == {
        name: hashlib.sha256((dist / name).read_bytes()).hexdigest() for name in {*names} - {*names[:2], names[4]}
    }
    source = statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert source["digest"] == {"gitCommit": git(clone, "rev-parse", "HEAD")}
    first = {name: (dist / name).read_bytes() for name in names}
    assert _built_again(clone, tmp_path) == first, "the tag gives the release again"
    for name in names:
        (copy / name).write_bytes(first[name] + b" ")
        assert verified(copy).returncode != 0, name
        (copy / name).write_bytes(first[name])
    (copy / "venv.py").write_text("raise SystemExit('a file of the folder ran')")
    assert (verified(copy).returncode, verified(copy).stdout.splitlines()[-1]) == (1, b"venv.py")
    page = (ROOT / "docs/operate/get.md").read_text("utf-8")
    (made,) = re.findall(r"(?m)^    (\(cd / .* -m venv )/opt", page)
    command = f"{made}--without-pip {tmp_path}/made)".replace("/usr/bin/python3", sys.executable)
    subprocess.run(["sh", "-c", command], cwd=copy, check=True)
    (copy / "venv.py").unlink()
    sbom = json.loads((dist / names[3]).read_text("utf-8"))
    assert sbom["metadata"]["component"]["version"] == "9.0.0"
    assert {"fastapi", "httpx", "tenacity", "asyncpg"} <= {part["name"] for part in sbom["components"]}
    assert git(clone, "log", "-1", "--format=%s") == "Release 9.0.0"
    assert git(clone, "tag", "--points-at", "HEAD") == "v9.0.0"
    assert git(clone, "status", "--porcelain") == ""
    assert "## [9.0.0] - 2026-04-05" in log.read_text("utf-8")

    venv.create(tmp_path / "clean", with_pip=True)
    workflow = yaml.safe_load((ROOT / "deploy/ci/assistant-gateway.yml").read_text("utf-8"))
    (install,) = (step["run"] for step in workflow["jobs"]["plan"]["steps"] if step.get("name") == "Install")
    (dist / names[7]).unlink()  # the sdist: not all files have to be there
    environ = {
        **os.environ,
        "PIP_NO_COMPILE": "1",
        "PATH": f"{tmp_path}/clean/bin:{os.environ['PATH']}",
        "DIST": str(dist),
    }
    subprocess.run(["bash", "-e", "-c", install], check=True, cwd=tmp_path, env=environ, capture_output=True)
    shown = subprocess.run(
        [str(tmp_path / "clean/bin/gateway"), "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert shown.stdout == "gateway 9.0.0\n"
    doctor = [str(tmp_path / "clean/bin/gateway"), "doctor", "--installed", str(copy)]
    done = subprocess.run(doctor, capture_output=True, text=True, cwd=tmp_path)
    assert "error" not in done.stdout, done.stdout
    (package,) = (tmp_path / "clean").glob("lib/python*/site-packages/gateway")
    (package / "added.py").touch()
    done = subprocess.run(doctor, capture_output=True, text=True, cwd=tmp_path)
    assert "gateway/added.py: is in no list of a package" in done.stdout
    command = [str(tmp_path / "clean/bin/gateway"), "demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as demo:
        assert demo.stdout is not None
        try:
            shown_lines = list(takewhile(lambda line: "Ctrl-C" not in line, demo.stdout))
        finally:
            demo.terminate()
    assert any("China" in line and "你好" in line for line in shown_lines)
