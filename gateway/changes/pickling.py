"""Pickle a config version, with its secrets, for another process of the same gateway."""

from __future__ import annotations

import pickle

from gateway.model.config_version import ConfigVersion
from providers.auth import secret_problem


class ConfigNotPortable(ValueError):
    """The config version cannot be sent to another process."""


def pack(config: ConfigVersion) -> bytes:
    """Return the pickled config version. Raises ConfigNotPortable."""
    try:
        return pickle.dumps(config, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigNotPortable(
            f"this config cannot be sent to another process, because an adapter in it cannot be pickled ({error}): "
            "make the adapter an object of a class at the top level of its module"
        ) from None


def unpack(packed: bytes) -> ConfigVersion:
    """Return the config version, and load the code that signs its requests.

    Loading this code at the first request would delay all others by a sixth of a second. It would also lie in memory
    after large request bodies, so that their memory could not be returned to the system.
    """
    config: ConfigVersion = pickle.loads(packed)  # noqa: S301  # written by our own parent or child process
    for deployment in config.deployments.values():
        for secret in deployment.credentials:
            secret_problem(deployment.adapter.auth, secret)
    return config
