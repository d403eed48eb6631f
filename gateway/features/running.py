"""The features that keep data or run in a process, in the order in which a chat passes them."""

from __future__ import annotations

from gateway.features.crisis.feature import CRISIS
from gateway.features.duties.feature import DUTIES
from gateway.features.feature import Feature, KeptData, KeptOfUsers, Process, RegionGate, Watcher
from gateway.features.marks.feature import MARKS
from gateway.features.shadow.feature import SHADOW
from gateway.policy.doors import PublicPath

FEATURES: tuple[Feature, ...] = (CRISIS, SHADOW, DUTIES, MARKS)
KEPT: tuple[KeptData, ...] = tuple(feature.kept for feature in FEATURES if feature.kept is not None)
PATHS: tuple[PublicPath, ...] = tuple(path for feature in FEATURES for path in feature.paths)
OF_USERS: tuple[KeptOfUsers, ...] = tuple(it.of_users for it in FEATURES if it.of_users is not None)


def gates_of(process: Process) -> tuple[RegionGate, ...]:
    """Return the gates of a process, in the order in which a chat passes them."""
    return tuple(feature.gate(process) for feature in FEATURES if feature.gate is not None)


def watchers_of(process: Process) -> tuple[Watcher, ...]:
    begun = [feature.watcher(process) for feature in FEATURES if feature.watcher is not None]
    return tuple(watcher for watcher in begun if watcher is not None)
