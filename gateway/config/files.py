"""The files that a config names for signals of location: looked at once while the config is loaded, so that what is
wrong with them is told with the rest. What they hold is read again while the gateway runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

from gateway.files import open_file

__all__ = ["FileLook", "key_file", "look_at_files"]

_MAX_KEY_SET_BYTES = 256 * 1024
_REFERENCE = re.compile(r"\$\{file:(/[^{}\0]+)\}")


@dataclass(frozen=True, slots=True)
class FileLook:
    """What a file was found to be. problem: why it can't be used now; age_s: of a database, by its own date."""

    problem: str = ""
    age_s: float = 0.0


def key_file(jwks: str) -> str | None:
    """The path that the text names, written plainly or as `${file:/path}`; None if it is no whole path."""
    match = _REFERENCE.fullmatch(jwks)
    path = match[1] if match else jwks
    return path if FilePath(path).is_absolute() and "\0" not in path else None


def look_at_files(values: Mapping[str, object]) -> dict[str, FileLook]:
    """What is found at each path of `location.geoip` and `location.claim`."""
    location = values.get("location")
    location = location if isinstance(location, dict) else {}
    geoip, claim = location.get("geoip"), location.get("claim")
    looks: dict[str, FileLook] = {}
    database = geoip.get("path") if isinstance(geoip, dict) else None
    if isinstance(database, str) and key_file(database):
        looks[database] = _look_at_database(database)
    jwks = claim.get("jwks") if isinstance(claim, dict) else None
    if isinstance(jwks, str) and (path := key_file(jwks)):
        looks[path] = _look_at_keys(path)
    return looks


def _look_at_database(path: str) -> FileLook:
    from gateway.geoip import GeoIpError, read_geoip  # not imported by those who have no database

    try:
        return FileLook(age_s=time.time() - read_geoip(path).built_at)
    except GeoIpError as error:
        return FileLook(str(error))


def _look_at_keys(path: str) -> FileLook:
    try:
        with open_file(path) as file:
            document = json.loads(file.read(_MAX_KEY_SET_BYTES))
    except OSError as error:
        return FileLook(f"can't be read ({error.strerror})")
    except (ValueError, RecursionError):
        return FileLook("is no JSON, or too large")
    is_set = isinstance(document, dict) and isinstance(document.get("keys"), list) and document["keys"]
    return FileLook() if is_set else FileLook("is no key set: it has no list `keys`")
