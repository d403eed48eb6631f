"""`gateway doctor --installed`: every way in which installed files can differ from their release."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from gateway.cli.installed_files import installed_problems, site_problems
from gateway.operator_errors import CommandError

FILES = {"gateway/__init__.py": "", "gateway/app.py": "serve()\n", "providers/__init__.py": ""}
INFO = "assistant_gateway-1.0.0.dist-info"
METADATA = "Metadata-Version: 2.4\nName: {}\nVersion: {}\n"


def record_of(files: dict[str, str], info: str) -> str:
    lines = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(text)}\n")
    return "".join(lines) + f"{info}/RECORD,,\ngateway/__pycache__/app.pyc,,\n"


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    ours = {**FILES, f"{INFO}/METADATA": METADATA.format("assistant-gateway", "1.0.0")}
    httpx = {"httpx/__init__.py": "get = None\n", "httpx-0.28.1.dist-info/METADATA": METADATA.format("httpx", "0.28.1")}
    put(tmp_path / "site", ours | {f"{INFO}/RECORD": record_of(ours, INFO)})
    put(tmp_path / "site", httpx | {"httpx-0.28.1.dist-info/RECORD": record_of(httpx, "httpx-0.28.1.dist-info")})
    put(tmp_path / "release", {"requirements.txt": "httpx==0.28.1 \\\n    --hash=sha256:00\n"})
    with ZipFile(tmp_path / "release/assistant_gateway-1.0.0-py3-none-any.whl", "w") as wheel:
        for name, text in (ours | {f"{INFO}/RECORD": record_of(ours, INFO)}).items():
            wheel.writestr(name, text)
    return tmp_path / "site"


def test_files_as_they_were_installed_have_no_problem(site: Path) -> None:
    put(site, {"gateway/__pycache__/app.cpython-311.pyc": "compiled"})
    assert list(site_problems(site, None)) == []
    assert list(site_problems(site, site.parent / "release")) == []


def change_the_list_too(site: Path) -> None:
    put(site, {"gateway/app.py": "steal()\n"})
    changed = {**FILES, "gateway/app.py": "steal()\n"}
    put(site, {f"{INFO}/RECORD": record_of(changed, INFO)})


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (
            lambda site: put(site, {"gateway/app.py": "steal()\n"}),
            "gateway/app.py: is not as in the list of assistant-g",
        ),
        (lambda site: put(site, {"httpx/__init__.py": ""}), "httpx/__init__.py: is not as in the list of httpx"),
        (lambda site: (site / "gateway/app.py").unlink(), "gateway/app.py: can't be read (No such file or directory)"),
        (lambda site: put(site, {"gateway/more.py": ""}), "gateway/more.py: is in no list of a package"),
        (lambda site: put(site, {"start.pth": "import steal\n"}), "start.pth: is in no list of a package"),
        (lambda site: put(site, {"sitecustomize.py": "steal()\n"}), "sitecustomize.py: is in no list of a package"),
        (lambda site: put(site, {"usercustomize.py": "steal()\n"}), "usercustomize.py: is in no list of a package"),
        (lambda site: put(site, {"httpx/more.py": ""}), "httpx/more.py: is in no list of a package"),
        (lambda site: put(site, {"tomllib/__init__.py": ""}), "tomllib/__init__.py: is in no list of a package"),
        (lambda site: put(site, {"httpx.pyc": ""}), "httpx.pyc: is in no list of a package"),
        (lambda site: (site / "json").symlink_to("/tmp"), "json: is in no list of a package"),  # noqa: S108
        (change_the_list_too, "gateway/app.py: is not as in the wheel of the release"),
        (
            lambda site: put(site, {"httpx-0.28.1.dist-info/METADATA": METADATA.format("httpx", "0.28.2")}),
            "httpx: is 0.28.2, and the release has 0.28.1",
        ),
    ],
)
def test_a_difference_is_named(site: Path, change: Callable[[Path], object], shown: str) -> None:
    change(site)
    assert any(
        f"{problem.subject}: {problem.message}".startswith(shown)
        for problem in site_problems(site, site.parent / "release")
    )


def test_a_pth_that_a_package_lists_is_named(site: Path) -> None:
    files = {"start.pth": "import it\n", "it-1.dist-info/METADATA": METADATA.format("it", "1")}
    put(site, files)
    put(site, {"it-1.dist-info/RECORD": record_of(files, "it-1.dist-info")})
    (problem,) = site_problems(site, None)
    assert str(problem).startswith("warning  start.pth: it runs it at each start of Python")


def test_a_folder_without_a_wheel_is_refused(site: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="not the folder of a release"):
        list(site_problems(site, tmp_path))


def test_a_checkout_is_no_installation() -> None:
    with pytest.raises(CommandError, match="no wheel was installed there"):
        list(installed_problems(None))
