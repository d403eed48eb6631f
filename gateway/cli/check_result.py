"""One fact that `gateway doctor` reports."""

from __future__ import annotations

from typing import Literal

from providers.value import Value

Level = Literal["ok", "warning", "error"]


class CheckResult(Value, frozen=True):
    """One fact of an installation, and the step that fixes it, or an empty text."""

    level: Level
    subject: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:8} {self.subject}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")
