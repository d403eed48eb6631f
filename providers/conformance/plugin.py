"""The pytest side of the kit: its options, and what each case is run over.

pytest loads this module in every session where the package is installed, before anything is measured; so it imports
nothing of the project until a case of the kit asks for a subject.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from providers.conformance.selection import Selection

_PACKAGE = "providers.conformance."
_MODULES = ("answers", "errors", "garbage", "purity", "requests", "streams", "wire")

pytest.register_assert_rewrite(*(f"{_PACKAGE}test_{name}" for name in _MODULES), f"{_PACKAGE}checks")


class Hooks:
    """The hook of the kit, for a conftest next to the module that imports its cases."""

    @pytest.hookspec(firstresult=True)
    def pytest_conformance_values(
        self, config: pytest.Config, case: str, values: Sequence[object], selection: Selection
    ) -> Sequence[object] | None:
        """Return those of the values that a case runs over, each as it is or in a `pytest.param` with marks.

        None leaves the choice to the next conftest, and by default a case runs over all values.
        """


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hook of the kit."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The kit's options."""
    group = parser.getgroup("conformance", "conformance of a provider's adapter (providers.conformance)")
    group.addoption(
        "--adapter",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="hold this adapter against the kit; may be repeated (default: every registered one that has a dialect)",
    )
    group.addoption(
        "--dialect",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="the dialect of the adapter at the same place in the list (default: the registered one of its name, else "
        "`DIALECT` of the adapter's module)",
    )
    group.addoption(
        "--wire",
        metavar="DIR",
        help="recorded fixtures: a folder for each adapter (default: tests/wire, if it exists)",
    )
    group.addoption(
        "--write-wire", action="store_true", help="write what the adapters make of the fixtures as their expectation"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Say what is wrong with the options before anything is collected."""
    if any(config.getoption(name) for name in ("--adapter", "--dialect", "--wire")):
        _selection(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each case of the kit over every subject; cases of other tests are left alone."""
    if not metafunc.function.__module__.startswith(_PACKAGE):
        return
    selection = _selection(metafunc.config)
    for name, values in selection.parameters(frozenset(metafunc.fixturenames)).items():
        chosen = metafunc.definition.ihook.pytest_conformance_values(
            config=metafunc.config, case=metafunc.function.__name__, values=values, selection=selection
        )
        metafunc.parametrize(name, values if chosen is None else chosen, ids=str)


def pytest_report_header(config: pytest.Config) -> str | None:
    """What the kit was told to hold to account."""
    chosen: list[str] = config.getoption("--adapter")
    return f"conformance: {', '.join(chosen)}" if chosen else None


def _selection(config: pytest.Config) -> Selection:
    from providers.conformance.selection import select

    selection = config.stash.get(_SELECTION, None)
    if selection is None:
        wire = config.getoption("--wire")
        selection = select(
            adapters=config.getoption("--adapter"),
            dialects=config.getoption("--dialect"),
            wire=config.rootpath / "tests" / "wire" if wire is None else config.invocation_params.dir / wire,
            wire_is_given=wire is not None,
            folder=config.invocation_params.dir,
        )
        config.stash[_SELECTION] = selection
    return selection


_SELECTION: pytest.StashKey[Selection] = pytest.StashKey()
