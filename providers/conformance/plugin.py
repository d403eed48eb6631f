"""The pytest plug-in of the kit: its command-line options and the parameters of its tests.

pytest loads this module in every session of an environment in which the package is installed, before coverage
measurement starts. So it imports no other module of the project until a test of the kit needs a subject.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from providers.conformance.selection import Selection

_PACKAGE = "providers.conformance."
_MODULES = ("answers", "audio", "decisions", "errors", "garbage", "inputs", "purity", "requests", "streams", "wire")

pytest.register_assert_rewrite(*(f"{_PACKAGE}test_{name}" for name in _MODULES), f"{_PACKAGE}checks")
_SELECTION: pytest.StashKey[Selection] = pytest.StashKey()


class Hooks:
    """The hooks of the kit, for a conftest in the folder of the module that imports its tests."""

    @pytest.hookspec(firstresult=True)
    def pytest_conformance_values(
        self, config: pytest.Config, case: str, values: Sequence[object], selection: Selection
    ) -> Sequence[object] | None:
        """Return the values that a test runs over, each as it is or in a `pytest.param` with marks.

        None leaves the choice to the next conftest. By default, a test runs over all values.
        """


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks of the kit."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the kit's options."""
    group = parser.getgroup("conformance", "conformance of a provider's adapter (providers.conformance)")
    group.addoption(
        "--adapter",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="test this adapter; may be repeated (default: every registered adapter that has a registered simulator)",
    )
    group.addoption(
        "--simulator",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="the simulator of the adapter at the same position (default: the simulator registered under the adapter's "
        "name, or else `SIMULATOR` in the adapter's module)",
    )
    group.addoption(
        "--wire",
        metavar="DIR",
        help="the folder of recorded fixtures, with a subfolder for each adapter (default: tests/wire, if it exists)",
    )
    group.addoption(
        "--write-wire", action="store_true", help="write the adapters' results into the fixtures as expected results"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Report wrong options before tests are collected."""
    if any(config.getoption(name) for name in ("--adapter", "--simulator", "--wire")):
        _selection(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of the kit for every subject. Other tests are not changed."""
    if not metafunc.function.__module__.startswith(_PACKAGE):
        return
    selection = _selection(metafunc.config)
    for name, values in selection.parameters(frozenset(metafunc.fixturenames)).items():
        chosen = metafunc.definition.ihook.pytest_conformance_values(
            config=metafunc.config, case=metafunc.function.__name__, values=values, selection=selection
        )
        metafunc.parametrize(name, values if chosen is None else chosen, ids=str)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Return the line that names the adapters under test."""
    names: list[str] = config.getoption("--adapter")
    return f"conformance: {', '.join(names)}" if names else None


def _selection(config: pytest.Config) -> Selection:
    from providers.conformance.selection import select

    selection = config.stash.get(_SELECTION, None)
    if selection is None:
        wire = config.getoption("--wire")
        selection = select(
            adapters=config.getoption("--adapter"),
            simulators=config.getoption("--simulator"),
            wire=config.rootpath / "tests" / "wire" if wire is None else config.invocation_params.dir / wire,
            wire_is_given=wire is not None,
            folder=config.invocation_params.dir,
        )
        config.stash[_SELECTION] = selection
    return selection
