"""Lists of known violations of the rules. A list may only get shorter: a new entry fails, and so does a fixed one.
    python -m tests.architecture.known_exceptions

rewrites every list from the code, for example after modules were renamed. It refuses to make a list longer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "exceptions"
_CHECKS: dict[str, Callable[[], Iterable[str]]] = {}


def exceptions_of(name: str) -> set[str]:
    """Return the entries of one list. A list without a file is empty."""
    path = FOLDER / f"{name}.txt"
    return set(path.read_text("utf-8").splitlines()) if path.exists() else set()


def assert_only_known(name: str, found: Iterable[str]) -> None:
    """Fail if something that is not in the list violates the rule, or if an entry no longer violates it."""
    now, listed = set(found), exceptions_of(name)
    assert now <= listed, "these violate the rule:\n" + "\n".join(sorted(now - listed))
    assert listed <= now, f"remove these lines from {FOLDER / name}.txt:\n" + "\n".join(sorted(listed - now))


def shrinking(check: Callable[[], Iterable[str]]) -> Callable[[], None]:
    """Turn a function that returns violations into a test. Its list has the name that follows `test_`."""
    name = check.__name__.removeprefix("test_")
    _CHECKS[name] = check

    def test() -> None:
        assert_only_known(name, check())

    test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
    return test


def _rewrite() -> None:
    from tests.architecture import test_code_rules, test_layers, test_loaded_libraries

    assert all((test_code_rules, test_layers, test_loaded_libraries))
    for name, check in _CHECKS.items():
        before, found = exceptions_of(name), sorted(set(check()))
        path = FOLDER / f"{name}.txt"
        if len(found) > len(before) and (before or "--begin" not in sys.argv):
            added = "\n".join(one for one in found if one not in before)
            sys.exit(f"{path.name}: {len(found)} break the rule, {len(before)} did. New:\n{added}")
        if found:
            path.write_text("\n".join([*found, ""]), "utf-8")
        else:
            path.unlink(missing_ok=True)
        print(f"{name}: {len(before)} -> {len(found)}")


if __name__ == "__main__":
    # The lists belong to the module under its real name, which the tests import.
    from tests.architecture.known_exceptions import _rewrite as rewrite

    rewrite()
