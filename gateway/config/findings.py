"""Collect what is wrong with one document, each finding at its place in the file."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.config.problems import Path, Problem, Severity
from gateway.config.yaml_tree import Source

__all__ = ["Findings"]


@dataclass(slots=True)
class Findings:
    """Errors and warnings so far; starts with those of the text itself."""

    source: Source
    problems: list[Problem] = field(init=False)

    def __post_init__(self) -> None:
        self.problems = list(self.source.problems)

    def error(self, path: Path, message: str, hint: str = "", *, key: bool = False) -> None:
        """Add a mistake; with `key`, it is the last part of the path that is wrong, not its value."""
        self._add(path, message, hint, "error", key)

    def warn(self, path: Path, message: str, hint: str = "") -> None:
        """Add something to know that doesn't keep the config from being used."""
        self._add(path, message, hint, "warning", False)

    @property
    def rejected(self) -> bool:
        """Whether there is an error among the findings."""
        return any(problem.severity == "error" for problem in self.problems)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The warnings, by place."""
        found = {problem for problem in self.problems if problem.severity == "warning"}
        return tuple(sorted(found, key=lambda problem: problem.order))

    def line(self, path: Path) -> int:
        """The line of a value, to refer to it in the message of another."""
        return self.source.place(path)[0]

    def _add(self, path: Path, message: str, hint: str, severity: Severity, key: bool) -> None:
        line, column = self.source.place(path, key=key)
        if path and isinstance(path[-1], int) and not self.source.has(path):
            path = path[:-1]  # a single word, where a list could be
        self.problems.append(Problem(self.source.file, line, column, path, message, hint, severity))
