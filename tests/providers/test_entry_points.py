"""Every vendor's TOML file in this repository is registered: an adapter and a simulator in `pyproject.toml`."""

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from providers.registry import load_registry
from providers.testkit.simulator import load_simulators

ROOT = Path(__file__).parents[2]
REGISTERED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
GROUPS = {"providers.adapters": "adapter", "providers.simulators": "simulator"}
COMPATIBLE = sorted(path.stem for path in (ROOT / "providers/compatible").glob("*.toml"))
OWN_FORMAT = sorted(path.stem for path in (ROOT / "providers/vendors").glob("*/*.toml"))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", COMPATIBLE)
def test_compatible_vendor_is_registered(name: str, group: str) -> None:
    value = f"providers.compatible.{GROUPS[group]}:{name.replace('-', '_')}"
    assert REGISTERED[group].get(name) == value, (
        f"providers/compatible/{name}.toml is not registered: add this line to pyproject.toml under "
        f'[project.entry-points."{group}"], then run `make generate`, which installs it:\n{name} = "{value}"'
    )


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", OWN_FORMAT)
def test_vendor_with_its_own_folder_is_registered(name: str, group: str) -> None:
    [path] = (ROOT / "providers/vendors").glob(f"*/{name}.toml")
    module = f"providers.vendors.{path.parent.name}.{GROUPS[group]}"
    assert REGISTERED[group].get(name, "").startswith(f"{module}:"), (
        f"{path.relative_to(ROOT)} is not registered: add a line to pyproject.toml under "
        f'[project.entry-points."{group}"], then run `make generate`, which installs it:\n'
        f'{name} = "{module}:{GROUPS[group].upper()}"'
    )


@pytest.mark.parametrize("name", [*COMPATIBLE, *OWN_FORMAT])
def test_registered_vendor_loads(name: str) -> None:
    """Other tests run for the vendors that load, so that a file with a mistake would be left out."""
    assert name in load_registry().adapters, load_registry().broken.get(name, f"{name}: is not installed")
    assert name in load_simulators().simulators, load_simulators().broken.get(name, f"{name}: is not installed")


@pytest.mark.parametrize("group", GROUPS)
def test_registered_vendors_are_installed(group: str) -> None:
    installed = {(point.name, point.value) for point in entry_points(group=group)}
    missing = sorted(REGISTERED[group].items() - installed)
    assert not missing, f"pyproject.toml registers {missing[0][0]!r}, which is not installed: run `make generate`"
    known = {*COMPATIBLE, *OWN_FORMAT}
    unknown = sorted(REGISTERED[group].keys() - known)
    assert not unknown, (
        f"pyproject.toml registers {unknown[0]!r}, which has no TOML file: remove the line or add the file"
    )


def test_page_puts_the_recordings_before_the_kit_that_reads_them() -> None:
    page = (ROOT / "docs/extend/compatible-vendors.md").read_text("utf-8")
    steps = re.split(
        r"^\d\. ", page.split("## Add a vendor to this repository")[1].split("\n## ")[0], flags=re.MULTILINE
    )
    order = ("into `providers/compatible/`", "`pyproject.toml`", "`make generate`", "`tests/wire`", "Run the kit")
    assert [next(number for number, step in enumerate(steps) if word in step) for word in order] == [1, 2, 3, 4, 5]
