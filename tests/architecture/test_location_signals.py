"""A location signal is one module and one registration: all other places follow from the registry."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

from gateway.config.loading import FILE_CHECKS
from gateway.config.schema.location import LocationSection
from gateway.model.location import Question
from gateway.policy.location import SIGNALS
from gateway.service.location import LOOKUPS
from tests.architecture.source_tree import ROOT

_SHARED_KEYS = {"signals", "edges", "conflict", "accept_country_only", "unknown"}
_NEW_SIGNAL = """
    # What a new signal consists of: this module ...
    from gateway.model.section import PlainSection, key, section
    from gateway.policy.location import SIGNALS
    from gateway.policy.location.signal import OwnSection, Signal, read_territory
    from providers.value import Value


    @section
    class StoreRules(PlainSection):
        \"\"\"The shop in which a terminal stands.\"\"\"

        header: str = key("The header with the country of the shop.", pattern="^[a-z-]+$")


    class StoreReport(Value, frozen=True):
        values: tuple[str, ...]


    def report(rules, given):
        values = given.values(rules.of(StoreRules).header)
        return StoreReport(values) if values else None


    def compiled(section, reader):
        if section.header == "accept-language":
            reader.error("header", "a language is not a country")
        return section


    store = Signal(
        "store",
        report,
        lambda config, client, reports: read_territory(config, "store", reports.get("store").values),
        headers=lambda rules: (rules.of(StoreRules).header,),
        can_locate=lambda config: config.location.rules.of(StoreRules) is not None,
        section="store",
        settings=OwnSection(StoreRules, "The shop of a terminal.", StoreRules, compiled),
        suppose=lambda territory: StoreReport((territory,)),
    )

    # ... and its registration.
    SIGNALS["store"] = store
"""
_USE = """
    from gateway.features.configuration import compile_config, schema_json
    from gateway.config.loading import parse_document
    from gateway.config.problems import ConfigRejected
    from gateway.config.reference import reference_page
    from gateway.model.caller import RequestHeaders
    from gateway.policy.location import location_key, resolve
    from gateway.policy.location.resolution import locator_of
    from gateway.service.explain import reports_from
    from providers.registry import load_registry
    from tests.kit.configs import BASE, KEYS


    def compiled_with(location):
        document = parse_document(BASE.replace(location=location).text.encode(), "gateway.yaml", KEYS)
        return compile_config(document, registry=load_registry())


    config = compiled_with({"signals": ["store"], "store": {"header": "x-shop"}}).config
    request = RequestHeaders({b"x-shop": b"CN"}, 0, "192.0.2.1", "")
    reports = locator_of(config).report(location_key(config, None, request))
    print(resolve(config, None, reports).region.name, resolve(config, None, reports_from("DE")).region.name)
    print([it.message for it in compiled_with({"signals": ["store"]}).warnings if it.path[:1] == ("location",)])
    for header in ("accept-language", "X"):
        try:
            compiled_with({"store": {"header": header}})
        except ConfigRejected as rejected:
            print(*[it.message for it in rejected.problems if it.severity == "error"])
    print("## `location.store`" in reference_page(schema_json()))
"""


def test_sections_files_and_lookups_are_those_of_the_registry() -> None:
    own = {it.section: it.settings for it in SIGNALS.values() if it.settings is not None}
    assert {*LocationSection.model_fields} == _SHARED_KEYS | {*own}
    assert [*LocationSection().signals] == [*SIGNALS]
    assert {*FILE_CHECKS} == {name for name, it in SIGNALS.items() if it.settings and it.settings.file_key}
    assert {*LOOKUPS} == {name for name, it in SIGNALS.items() if it.needs_lookup}
    assert all(name == signal.name for name, signal in SIGNALS.items())
    assert Question.__subclasses__(), "a signal with a lookup has a question"


@pytest.mark.slow
def test_new_signal_is_one_module_and_one_registration() -> None:
    """Its section, its mistakes, its location and its place in the reference follow from these."""
    code = dedent(_NEW_SIGNAL) + dedent(_USE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.splitlines() == [
        "cn eu",
        "['has no effect: `store` is not configured']",
        "a language is not a country",
        "must match the pattern ^[a-z-]+$",
        "True",
    ], done.stderr
