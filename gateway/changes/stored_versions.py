"""Compare stored versions with their hashes.

A version is named by the hash of its content. Anyone who can write to the state directory can replace a stored text.
Without a comparison, a rollback to a reviewed version would serve the replaced text under the reviewed name.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.config.problems import ConfigRejected
from gateway.config.source_text import VERSION_DIGITS, SourceText
from gateway.operator_errors import StateError
from gateway.state.database import describe_damage
from gateway.state.history import History, Version


def verified(version: Version, active: SourceText | None = None) -> Version:
    """Return the version if its text has its hash and its name, or is that of `active`. Raises StateError."""
    if fault := _fault_of(version, active):
        raise StateError(f"history.db can't be used: {describe_damage(f'version {version.version}: {fault}')}")
    return version


def damaged_versions(history: History) -> dict[str, str]:
    """Return the fault of each stored version that has one, by its name. Raises StateError."""
    return damaged(history.versions())


def damaged(versions: Iterable[Version]) -> dict[str, str]:
    """Return the fault of each of these versions that has one, by its name."""
    faults = ((version.version, _fault_of(version)) for version in versions)
    return {name: fault for name, fault in faults if fault}


def _fault_of(version: Version, active: SourceText | None = None) -> str:
    """Return how the version differs from its hash, or an empty text."""
    if version.version != version.content[:VERSION_DIGITS]:
        return f"its name is not the beginning of its hash {version.content}"
    if version.text is None or (
        active is not None and (active.text, active.content) == (version.text, version.content)
    ):
        return ""
    # Imported here, because a process that only serves requests reads no YAML.
    from gateway.config.loading import content_hash, digests_of, read_term_files, stored_files
    from gateway.config.yaml_document import parse_yaml

    try:
        values = parse_yaml(version.text, version.version).values
        catalogues, terms = stored_files(version.catalogues)
    except (ConfigRejected, ValueError, KeyError, RecursionError):
        return "its text is not the one that was activated: it is not valid"
    # Release 1.0 stored no digests of terms.
    if content_hash(values, catalogues, terms or digests_of(read_term_files(values))) == version.content:
        return ""
    if values.get("catalogue") and catalogues is None:
        return "its catalogue files are not stored, so its text cannot be compared with its hash"
    return "its text is not the one that was activated: their hashes differ"
