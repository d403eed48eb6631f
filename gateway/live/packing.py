"""A table as bytes, for another process of ours: pickled, with its secrets."""

from __future__ import annotations

import pickle

from gateway.model.table import Table

__all__ = ["TableNotPortable", "pack", "unpack"]


class TableNotPortable(ValueError):
    """The table can't be handed to another process."""


def pack(table: Table) -> bytes:
    """The table for another process; raises TableNotPortable."""
    try:
        return pickle.dumps(table, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TableNotPortable(
            f"this config can't be handed to another process, because an adapter in it can't be pickled ({error}): "
            "make that adapter an object of a class at the top of its module"
        ) from None


def unpack(packed: bytes) -> Table:
    """What `pack` was given."""
    table: Table = pickle.loads(packed)  # noqa: S301  # only our own parent or child process writes it
    return table
