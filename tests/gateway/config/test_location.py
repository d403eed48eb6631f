"""Sections of location that compile: what they become, and what an operator is warned of."""

import json
import time
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.config.check_report import render_matrix
from gateway.config.problems import dotted
from gateway.model.location_rules import LocationRules
from gateway.model.permit import ServicePermit
from gateway.model.signed_token import KeyFile, KeyUrl, SharedKey
from gateway.policy.location import SIGNALS, SignalLocator
from gateway.policy.location.claim import ClaimRules
from gateway.policy.location.geoip import GeoIpRules
from providers.auth import Secret
from tests.kit.claim_tokens import jwks, public
from tests.kit.config_cases import ENVIRON, compiled, compiled_file, rejected, sections
from tests.kit.location_signals import EXAMPLES, NAMES, registered, trial
from tests.kit.mmdb import mmdb

CLAIM = "issuer: https://issuer.example, audience: gw, algorithms: [ES256, RS256], longest: 15m"


def rules(location: str, environ: dict[str, str] | None = None) -> LocationRules:
    return compiled(sections(location=f"location: {{{location}}}"), environ).config.location.rules


def warned(location: str) -> list[str]:
    found = compiled(sections(location=f"location: {{{location}}}")).warnings
    return [f"{dotted(problem.path)}: {problem.message}" for problem in found if problem.path[:1] == ("location",)]


def test_a_claim_has_its_keys_at_a_url_in_a_file_or_in_a_secret() -> None:
    url = rules(f"claim: {{{CLAIM}, jwks: 'https://ISSUER.example:443/.well-known/jwks.json'}}").of(ClaimRules)
    permit = ServicePermit("https://issuer.example")
    keys = KeyUrl(permit, "/.well-known/jwks.json")
    assert url == ClaimRules("https://issuer.example", "gw", frozenset({"ES256", "RS256"}), keys, longest_s=900)
    for text in ("/etc/keys.json", "${file:/etc/keys.json}"):
        claim = rules(f"claim: {{{CLAIM}, jwks: '{text}', territory: 'https://x/t'}}").of(ClaimRules)
        assert (claim.keys, claim.territory) == (KeyFile("/etc/keys.json"), "https://x/t")
    secret = "s" * 32
    written = "location: {claim: {issuer: i, audience: a, algorithms: [HS256], secret: '${SHARED}', longest: 1h}}"
    found = compiled(sections(location=written), {**ENVIRON, "SHARED": secret})
    shared = found.config.location.rules.of(ClaimRules)
    assert (shared.keys, found.warnings) == (SharedKey((Secret(secret),)), ())


def test_database_is_found_next_to_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "geo").mkdir()
    (tmp_path / "geo/db.mmdb").write_bytes(mmdb({}, built_at=int(time.time())))
    path = tmp_path / "gateway.yaml"
    path.write_text(sections(location="location: {geoip: {path: geo/db.mmdb}}"), "utf-8")
    found = compiled_file(path)
    database = found.config.location.rules.of(GeoIpRules)
    assert database.path == str(tmp_path / "geo/db.mmdb")
    assert not [problem for problem in found.warnings if problem.path[:2] == ("location", "geoip")]


def test_signal_without_its_section_is_not_used() -> None:
    assert rules("conflict: refuse").signals == ("api_key", "assertion", "edge_header")
    assert not SignalLocator(rules("conflict: refuse")).needs_lookup
    asked = rules("geoip: {path: /x.mmdb}")
    assert asked.signals == ("api_key", "assertion", "edge_header", "geoip")
    assert SignalLocator(asked).needs_lookup
    assert asked.of(GeoIpRules) == GeoIpRules("/x.mmdb", 30 * 86_400)
    assert rules("geoip: {path: /x.mmdb, max_age: 36h}").of(GeoIpRules).max_age_s == 36 * 3600


def test_configured_signals_are_used_in_the_listed_order() -> None:
    claim = f"claim: {{{CLAIM}, jwks: 'https://i.example/j'}}"
    asked = rules(f"signals: [geoip, claim, api_key], geoip: {{path: /x.mmdb}}, {claim}")
    assert asked.signals == ("geoip", "claim", "api_key")


def test_signal_with_an_invalid_section_is_not_reported_as_missing() -> None:
    text = sections(location="location: {signals: [claim], claim: {issuer: 5}}")
    assert {dotted(problem.path)[:14] for problem in rejected(text)} == {"location.claim"}


_SECTIONS = {
    "edges": "edges: [{from: [10.0.0.0/8], country: C, client_ip: I}]",
    **{str(SIGNALS[name].section): f"{SIGNALS[name].section}: {json.dumps(it)}" for name, it in EXAMPLES.items()},
}


@pytest.mark.parametrize("name", NAMES)
def test_sections_that_no_listed_signal_reads_have_no_effect(name: str) -> None:
    signal = SIGNALS[name]
    own = {signal.section} | ({"edges"} if signal.reads_edges else set())
    found = warned(f"signals: [{name}], {', '.join(_SECTIONS.values())}")
    unused = {message.partition(":")[0] for message in found if "among" in message}
    assert unused == {f"location.{key}" for key in {*_SECTIONS} - own}


@pytest.mark.parametrize("name", [name for name, signal in SIGNALS.items() if signal.section is not None])
def test_section_of_every_signal_is_compiled(name: str) -> None:
    key = SIGNALS[name].section or ""
    compiled_rules = rules(_SECTIONS[key])
    assert compiled_rules.edges or compiled_rules.own
    assert name in compiled_rules.signals


@pytest.mark.parametrize("reads_edges", [True, False])
def test_trial_signal_uses_the_edges_exactly_if_it_reads_them(reads_edges: bool) -> None:
    with registered(replace(trial("claim"), reads_edges=reads_edges)):
        unused = "location.edges: has no effect: `edge_header` is not among `location.signals`"
        assert warned(f"signals: [claim], {_SECTIONS['edges']}") == ([] if reads_edges else [unused])


def test_networks_of_an_edge_without_secret_are_hops() -> None:
    found = rules(
        "edges: [{from: [10.0.0.0/8, '2001:db8::/32'], country: C, subdivision: CF-Region-Code},"
        " {from: [192.0.2.0/24], country: C, secret: {header: S, value: '${EDGE}'}}]"
    )
    assert found.edges[0].part_header == "cf-region-code"
    edge = found.edges[0]
    assert (edge.country_header, edge.part_header, edge.client_ip_header) == ("c", "cf-region-code", None)
    assert found.hops == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


def test_country_without_its_part_is_accepted_if_configured() -> None:
    text = sections(location="location: {accept_country_only: [UA]}", blocked="blocked: [UA-43]")
    table = compiled(text).config
    assert table.location.rules.country_only == {"UA"}
    assert "  accepted without their part: UA" in render_matrix(table).splitlines()
    assert "accepted without" not in render_matrix(compiled(sections()).config)


def test_location_files_are_checked_while_a_config_is_loaded(tmp_path: Path) -> None:
    database, keys = tmp_path / "world.mmdb", tmp_path / "keys.json"
    database.write_bytes(mmdb(built_at=int(time.time())))
    keys.write_bytes(jwks(public("k1")))
    location = f"location: {{geoip: {{path: {database}}}, claim: {{{CLAIM}, jwks: {keys}}}}}"
    assert found(tmp_path, location) == []
    database.write_bytes(mmdb(built_at=int(time.time()) - 31 * 86_400))
    assert found(tmp_path, location) == [
        "location.geoip.path: the database is 31 days old by its build date, more than `max_age`"
    ]
    database.write_bytes(mmdb(built_at=int(time.time()) + 2 * 86_400))
    assert found(tmp_path, location) == ["location.geoip.path: the build date of the database is 2 days in the future"]
    database.write_bytes(b"broken")
    problems = {b"{}": "is not a key set: it has no list `keys`", b"x": "is not valid JSON, or is larger than 256 KB"}
    for data, problem in problems.items():
        keys.write_bytes(data)
        assert found(tmp_path, location) == [
            "location.geoip.path: the file is not a MaxMind database, or is damaged",
            f"location.claim.jwks: the file {problem}",
        ]
    assert found(tmp_path, location, secrets=False) == []


def found(folder: Path, location: str, *, secrets: bool = True) -> list[str]:
    path = folder / "gateway.yaml"
    path.write_text(sections(location=location), "utf-8")
    warnings = compiled_file(path, secrets=secrets).warnings
    return [f"{dotted(each.path)}: {each.message}" for each in warnings if each.path[:1] == ("location",)]


def test_secret_is_not_checked_if_references_are_not_resolved() -> None:
    text = sections(location="location: {claim: {issuer: i, audience: a, algorithms: [HS512], secret: '${UNSET}'}}")
    assert compiled(text, {}, secrets=False).config.location.rules.of(ClaimRules) is not None
