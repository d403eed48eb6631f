"""Write one consistent archive of a state directory while a gateway uses it, and restore it into an empty one.

Theory of operation:

- A database is copied with SQLite's online backup, so each copy is the state of one moment.
- The journal is copied under its lock, and before the ledger. A row that is moved in between is in both, and the ledger
  takes it once. The copy has the name of no start of a machine, so the next start takes its rows, and no counters.
- The audit trail is copied between two copies of the history. If both name the same head, the trail belongs to them.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import shutil
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path, PurePosixPath

from gateway.operator_errors import StateError
from gateway.state.database import describe_error, open_large_to_read
from gateway.state.generated_key import CACHE_KEY, PEPPER, RECEIPT_KEY, USER_KEY
from gateway.state.lock import holder_of
from gateway.undo import undone_on_failure
from providers.value import Value

_MANIFEST = "manifest.json"
_FORMAT = 1
_KEYS = frozenset({CACHE_KEY, PEPPER, RECEIPT_KEY, USER_KEY})
_NOT_COPIED = frozenset({"gateway.lock", "use.lock", "simulated"})
"""The locks belong to running processes, and the folder to rehearsals."""
_JOURNAL, _HISTORY, _AUDIT = "journal", "history.db", "audit.jsonl"
_TRIES = 5
_MOST_KEY_BYTES = 65_536


class Backup(Value, frozen=True):
    """The content of an archive: when it was made, and the SHA-256 of each file by its name in the state directory.

    The directory had the `missing_keys`, and the archive has not.
    """

    release: str
    created: str
    files: dict[str, str]
    missing_keys: tuple[str, ...]


def write_backup(directory: Path, target: Path, release: str, created: str, *, with_keys: bool) -> Backup:
    """Write an archive of a state directory to a new file that only its owner can read. Raises StateError.

    A gateway may use the directory. The target must not exist. `created` is the time now, in ISO 8601. With `with_keys`
    the archive has the keys that the gateway made for itself, and private keys in PEM.
    """
    names = sorted(item.name for item in _entries(directory))
    try:
        keys = {name for name in names if name in _KEYS or _is_private_key(directory / name)}
        left_out = set() if with_keys else keys
        with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=f".{target.name}.") as folder:
            copy = Path(folder)
            for number, path in enumerate((directory / _JOURNAL).glob("*.lmdb")):
                (copy / _JOURNAL).mkdir(mode=0o700, exist_ok=True)
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    shutil.copyfile(path, copy / _JOURNAL / f"backup-{number}.lmdb")
            _copy_history(directory, copy)
            for name in names:
                if name not in left_out and not (copy / name).exists() and name not in (_JOURNAL, _HISTORY, _AUDIT):
                    _copy(directory / name, copy / name)
            files = {name: _digest(copy / name) for name in _files_below(copy)}
            backup = Backup(release, created, files, tuple(sorted(left_out)))
            _write_archive(copy, target, backup)
    except FileExistsError:
        raise StateError(f"{target} exists already: name a new file") from None
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"no backup was written to {target}: {describe_error(error)}") from error
    return backup


def restore_backup(source: Path, directory: Path) -> Backup:
    """Write the files of an archive into an empty or missing state directory.

    Raises StateError if the directory is in use or not empty, or the archive is damaged or of a later release. Nothing
    stays in the directory then.
    """
    if holder_of(directory) is not None:
        raise StateError(f"{directory} is in use by a running gateway: restore into another directory")
    try:
        if directory.exists() and any(directory.iterdir()):
            raise StateError(f"{directory} is not empty: restore into a new directory")
        with tarfile.open(source, "r:gz") as archive:
            members = {member.name: member for member in archive}
            backup = _manifest_of(archive, members, source)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with undone_on_failure(partial(_empty, directory)):
                for name, digest in backup.files.items():
                    _extract(archive, members.get(name), directory / name, digest, source)
    except NotADirectoryError:
        raise StateError(f"the state directory {directory} is a file; name a directory") from None
    except (OSError, tarfile.TarError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StateError(f"{source} cannot be restored: {reason}") from error
    return backup


def _entries(directory: Path) -> list[Path]:
    """Return what a backup has of a state directory. Drafts, locks and SQLite's own files are left out."""
    try:
        found = list(directory.iterdir())
    except OSError as error:
        raise StateError(f"{directory} cannot be read: {error.strerror}; name a state directory") from None
    kept = [
        item
        for item in found
        if not (
            item.name.startswith(".") or item.name in _NOT_COPIED or item.name.endswith(("-wal", "-shm", "-journal"))
        )
    ]
    if not kept:
        raise StateError(f"{directory} has nothing to back up: no gateway ever ran with it as GATEWAY_STATE_DIR")
    return kept


def _is_private_key(path: Path) -> bool:
    """Return whether a file is a key that an operator has put here, such as the file of `GATEWAY_RECEIPT_KEY`."""
    if not path.is_file() or path.stat().st_size > _MOST_KEY_BYTES:
        return False
    text = path.read_bytes().lstrip(b"\xef\xbb\xbf \r\n")
    return text.startswith(b"-----BEGIN") and b"PRIVATE KEY-----" in text


def _copy_history(directory: Path, copy: Path) -> None:
    """Copy the history and the audit trail that belongs to it."""
    if not (directory / _HISTORY).exists():
        if (directory / _AUDIT).exists():
            _copy(directory / _AUDIT, copy / _AUDIT)
        return
    for _ in range(_TRIES):
        (copy / _HISTORY).unlink(missing_ok=True)
        _copy(directory / _HISTORY, copy / _HISTORY)
        if not (directory / _AUDIT).exists():
            return
        shutil.copyfile(directory / _AUDIT, copy / _AUDIT)
        again = copy / f".{_HISTORY}"
        _copy(directory / _HISTORY, again)
        is_same = again.read_bytes() == (copy / _HISTORY).read_bytes()
        again.unlink()
        if is_same:
            return
    raise StateError("the configuration is changed all the time: try again")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(mode=0o700)
        for item in source.iterdir():
            _copy(item, target / item.name)
    elif source.suffix == ".db":
        # Any layout: a backup is a copy, and not a reader.
        with (
            closing(open_large_to_read(source.parent, source.stem, version=2**31)) as opened,
            closing(sqlite3.connect(target)) as copied,
        ):
            opened.backup(copied)
    elif source.is_file():
        shutil.copyfile(source, target)


def _files_below(folder: Path) -> list[str]:
    return sorted(item.relative_to(folder).as_posix() for item in folder.rglob("*") if item.is_file())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_archive(copy: Path, target: Path, backup: Backup) -> None:
    described = {
        "format": _FORMAT,
        "release": backup.release,
        "created": backup.created,
        "missing_keys": list(backup.missing_keys),
        "files": backup.files,
    }
    manifest = json.dumps(described, indent=1).encode()
    with target.open("xb") as file:
        target.chmod(0o600)
        with undone_on_failure(target.unlink), tarfile.open(fileobj=file, mode="w:gz") as archive:
            _add(archive, _MANIFEST, io.BytesIO(manifest), len(manifest))
            for name in backup.files:
                with (copy / name).open("rb") as content:
                    _add(archive, name, content, (copy / name).stat().st_size)


def _add(archive: tarfile.TarFile, name: str, content: io.BufferedIOBase, size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    archive.addfile(entry, content)


def _manifest_of(archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], source: Path) -> Backup:
    content = archive.extractfile(members[_MANIFEST]) if _MANIFEST in members else None
    try:
        described = json.load(content) if content is not None else {}
        found = int(described["format"])
        files = {str(name): str(digest) for name, digest in described["files"].items()}
        backup = Backup(described["release"], described["created"], files, tuple(described["missing_keys"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StateError(f"{source} is not a backup of a state directory") from None
    if found > _FORMAT:
        raise StateError(f"{source} was written by a later release ({backup.release}): restore it with that one")
    if bad := [name for name in files if not _is_inside(name)]:
        raise StateError(f"{source} is damaged: it has a file outside of the state directory ({bad[0][:80]!r})")
    return backup


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and 1 <= len(path.parts) <= 3 and "\\" not in name


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo | None, path: Path, digest: str, source: Path) -> None:
    content = archive.extractfile(member) if member is not None and member.isfile() else None
    if content is None:
        raise StateError(f"{source} is damaged: {path.name} is missing")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with path.open("xb") as file:
        path.chmod(0o600)
        shutil.copyfileobj(content, file)
    if _digest(path) != digest:
        raise StateError(f"{source} is damaged: {path.name} differs from the file that was backed up")


def _empty(directory: Path) -> None:
    for item in list(directory.iterdir()):
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()
