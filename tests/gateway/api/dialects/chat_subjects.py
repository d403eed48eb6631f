"""The most capable model of each adapter that answers chats, with a simulator that checks its requests."""

from providers.adapter import answers_chats
from providers.conformance.subject import Subject, subjects_of
from providers.registry import load_registry
from tests.kit.vendor_checks import checked_simulators


def _subjects() -> dict[str, Subject]:
    simulators = checked_simulators()
    found: dict[str, Subject] = {}
    for name, adapter in sorted(load_registry().adapters.items()):
        if name in simulators and answers_chats(adapter):
            known = subjects_of(adapter, simulators[name])
            found[name] = max(known, key=lambda one: (not one.is_invented, len(one.features | one.parameters)))
    return found


SUBJECTS = _subjects()
