"""The demo's own configuration file: the page moves a deployment to the front of a route, and takes the edit back."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from gateway.api.errors import ApiError
from gateway.config.problems import ConfigRejected
from gateway.config.route_edit import with_route
from gateway.console.texts import _
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from providers.value import Value


class ChangedLine(Value, frozen=True):
    """A line of the file before (`-`) or after (`+`) an edit."""

    number: int
    sign: str
    text: str


class OwnConfig:
    """The edits of the page to the configuration file. The gateway follows the file as after any other edit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = self._after = self._good = ""

    def lines(self) -> Sequence[ChangedLine]:
        """Return the lines that the last edit changed; none if it was taken back."""
        old, new = self._before.splitlines(), self._after.splitlines()
        lines: list[ChangedLine] = []
        matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
        for tag, start, end, new_start, new_end in matcher.get_opcodes():
            if tag != "equal":
                lines += [ChangedLine(number + 1, "-", old[number]) for number in range(start, end)]
                lines += [ChangedLine(number + 1, "+", new[number]) for number in range(new_start, new_end)]
        return lines

    def put_first(self, config: ConfigVersion, assistant: str, region: str, deployment: str) -> None:
        """Write the file with a deployment as the first step of a route. Raises ApiError."""
        known = config.assistants.get(assistant)
        routes = movable_routes(known) if known is not None else {}
        if known is None or region not in routes:
            raise ApiError("invalid_request", _("the assistant has no route of single deployments there"), "region")
        if deployment not in candidates(known):
            raise ApiError("invalid_request", _("no route of the assistant has this deployment"), "deployment")
        steps = [deployment, *(name for name in routes[region] if name != deployment)]
        text = self._read()
        try:
            edited = with_route(text, self._path.name, known.name, region, steps)
        except ConfigRejected as error:
            raise ApiError("invalid_request", str(error)) from error
        self._write(text, edited)

    def note_good(self, loaded_at_s: float) -> None:
        """Keep the text of the file, which the gateway has loaded at this time, unless it has changed since."""
        try:
            if self._path.stat().st_mtime <= loaded_at_s:
                self._good = self._path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return

    def undo(self, *, is_rejected: bool = False) -> None:
        """Write the file as it was before the last edit, or the last good text if the gateway rejects the present one.

        Raises ApiError if it has changed since in another way.
        """
        if is_rejected and self._good:
            self._write(self._good, self._good)
            return
        if self._before == self._after or self._read() != self._after:
            message = _("the file was edited in another way since: change it in an editor")
            raise ApiError("invalid_request", message)
        self._write(self._before, self._before)

    def _read(self) -> str:
        try:
            return self._path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ApiError("invalid_request", f"{self._path} can't be read: {error}") from error

    def _write(self, before: str, after: str) -> None:
        # The gateway may read the file at any moment, so it is replaced as a whole.
        beside = self._path.with_name(f".{self._path.name}.edit")
        try:
            beside.write_text(after, "utf-8")
            os.replace(beside, self._path)
        except OSError as error:
            raise ApiError("invalid_request", f"{self._path} can't be written: {error}") from error
        self._before, self._after = before, after


def movable_routes(assistant: Assistant) -> dict[str, list[str]]:
    """Return the routes of single deployments, without weighted steps, by region."""
    return {
        region: [step.name for step in route if isinstance(step, Deployment)]
        for region, route in assistant.routes.items()
        if region not in assistant.barriers and all(isinstance(step, Deployment) for step in route)
    }


def candidates(assistant: Assistant) -> list[str]:
    """Return the deployments of all its routes, in the order in which they are written."""
    return list(dict.fromkeys(name for names in movable_routes(assistant).values() for name in names))
