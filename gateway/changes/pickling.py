"""A table as bytes, for another process of ours: pickled, with its secrets."""

from __future__ import annotations

import pickle

from gateway.model.config_version import ConfigVersion
from providers.auth import secret_problem


class TableNotPortable(ValueError):
    """The table can't be handed to another process."""


def pack(table: ConfigVersion) -> bytes:
    """The table for another process; raises TableNotPortable."""
    try:
        return pickle.dumps(table, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TableNotPortable(
            f"this config can't be handed to another process, because an adapter in it can't be pickled ({error}): "
            "make that adapter an object of a class at the top of its module"
        ) from None


def unpack(packed: bytes) -> ConfigVersion:
    """What `pack` was given, with what signs its requests loaded.

    Loaded at the first request, it would keep all others waiting for a sixth of a second, and lie in memory behind the
    pieces of whatever large bodies are there by then, which could not be given back.
    """
    table: ConfigVersion = pickle.loads(packed)  # noqa: S301  # only our own parent or child process writes it
    for deployment in table.deployments.values():
        for secret in deployment.credentials:
            secret_problem(deployment.adapter.auth, secret)
    return table
