"""Record every outgoing connection of a gateway, by the audit events of the interpreter in each of its processes.

The recorded processes use asyncio's own loop, because uvloop connects below the interpreter, where no event is raised.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Recording"]

_HOOK = """
import asyncio, json, os, sys, types

loop = types.ModuleType("uvloop")
loop.run = asyncio.run
sys.modules["uvloop"] = loop
_file = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")

def note(event, arguments):
    if event in _EVENTS:
        details = arguments[1] if event in ("socket.connect", "socket.sendto", "socket.sendmsg") else arguments[:2]
        line = json.dumps([os.getpid(), event, [str(part) for part in details or ()]])
        os.write(_file, line.encode() + b"\\n")

sys.addaudithook(note)
"""


class Recording:
    """The recorded events, read from a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "hook"
        self._folder.mkdir()
        self._path = folder / "sockets.jsonl"
        (self._folder / "sitecustomize.py").write_text(_HOOK.format(path=str(self._path)), "utf-8")

    @property
    def environ(self) -> Mapping[str, str]:
        """Return the environment variables with which a process and its children are recorded."""
        before = os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": os.pathsep.join([str(self._folder), *([before] if before else [])])}

    def lines(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """Return the process, the event and the address of each record."""
        records = map(json.loads, self._path.read_text("utf-8").splitlines())
        return [(pid, event, tuple(address)) for pid, event, address in records]

    def addresses(self) -> Counter[tuple[str, ...]]:
        """Return how often the processes connected or sent to each address."""
        wanted = ("socket.connect", "socket.sendto", "socket.sendmsg")
        return Counter(address for _, event, address in self.lines() if event in wanted)

    def names(self) -> set[str]:
        """Return every name that was looked up."""
        wanted = ("socket.getaddrinfo", "socket.gethostbyname")
        return {address[0] for _, event, address in self.lines() if event in wanted}

    def processes(self) -> int:
        """Return how many processes have opened a connection."""
        return len({pid for pid, event, _ in self.lines() if event == "socket.connect"})
