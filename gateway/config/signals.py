"""The signals of location that are set up in sections of their own: signed claims, and a database of addresses."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.field_types import age_s
from gateway.config.loading import CheckedFiles, key_file
from gateway.config.problems import KeyPath
from gateway.config.schema.location import ClaimSection, GeoIpSection
from gateway.config.secret_references import Resolution, secret_at
from gateway.config.service_permits import read_service
from gateway.config.validation import Findings
from gateway.model.signals import ClaimRules, GeoIpRules, KeyFile, KeySource, KeyUrl, SharedKey

_CLAIM: KeyPath = ("location", "claim")
_GEOIP: KeyPath = ("location", "geoip")
_DAY_S = 86_400.0


def compile_claim(
    findings: Findings, section: ClaimSection, references: Mapping[str, Resolution], files: Mapping[str, CheckedFiles]
) -> ClaimRules | None:
    """The rules of claims, None where they are unsound."""
    shared = [name for name in section.algorithms if name.startswith("HS")]
    if section.secret is not None and len(shared) < len(section.algorithms):
        findings.error((*_CLAIM, "algorithms"), "with a `secret` only HS256, HS384 and HS512 can be used")
    if section.secret is None and shared:
        message = f"{', '.join(shared)} would take a public key for a secret"
        findings.error((*_CLAIM, "algorithms"), message, "leave it out, or configure a `secret` instead of `jwks`")
    if (section.jwks is None) == (section.secret is None):
        findings.error(_CLAIM, "needs `jwks` or a `secret`, and not both", "public keys (`jwks`) are the better choice")
        return None
    if section.secret is not None:
        keys: KeySource | None = _secret(findings, section.secret, max(shared, default="HS256"), references)
    else:
        keys = _key_set(findings, section.jwks or "", files)
    if keys is None:
        return None
    algorithms, members = frozenset(section.algorithms), (section.territory, section.preferences, section.consents)
    return ClaimRules(section.issuer, section.audience, algorithms, keys, *members)


def _key_set(findings: Findings, jwks: str, files: Mapping[str, CheckedFiles]) -> KeySource | None:
    place = (*_CLAIM, "jwks")
    if path := key_file(jwks):
        if (look := files.get(path)) is not None and look.problem:
            findings.warn(place, f"the file {look.problem}", "until it can be read, every claim is refused")
        return KeyFile(path)
    if "://" not in jwks:
        findings.error(place, "is neither a URL nor the whole path of a file", "such as https://issuer.example/jwks")
        return None
    service = read_service(findings, place, jwks)
    return KeyUrl(service.permit, service.path) if service is not None else None


def _secret(findings: Findings, text: str, algorithm: str, references: Mapping[str, Resolution]) -> KeySource | None:
    place = (*_CLAIM, "secret")
    found = secret_at(findings, place, text, references, "CLAIM_SECRET")
    if problem := found.mistake or found.missing:
        findings.error(place, f"{found.source or 'the secret'} {problem}", found.hint or "set it, or remove `claim`")
    if found.secret is None:
        return None
    # RFC 7518, section 3.2: a key as long as the hash.
    least = int(algorithm[2:]) // 8
    if not found.is_stand_in and len(found.secret.reveal()) < least:
        findings.error(place, f"is shorter than {least} characters, which {algorithm} needs", "make a longer one")
    return SharedKey(found.secret)


def compile_geoip(findings: Findings, section: GeoIpSection, files: Mapping[str, CheckedFiles]) -> GeoIpRules:
    """The rules of the database."""
    place = (*_GEOIP, "path")
    most_s = age_s(section.max_age)
    look = files.get(section.path)
    if key_file(section.path) is None:
        findings.error(place, "must be the whole path of a file", "such as /var/lib/GeoIP/GeoLite2-Country.mmdb")
    elif look is not None and look.problem:
        findings.warn(place, f"the file {look.problem}", "until it can be read, `geoip` says nothing")
    elif look is not None and look.age_s > most_s:
        message = f"the database is {look.age_s / _DAY_S:.0f} days old by its own date, more than `max_age`"
        findings.warn(place, message, "`geoip` says nothing until it is replaced by a newer one")
    elif look is not None and look.age_s < -_DAY_S:
        message = f"the database is from a day {-look.age_s / _DAY_S:.0f} days ahead, by its own date"
        findings.warn(place, message, "`geoip` says nothing until that day: is the clock of this machine right?")
    return GeoIpRules(section.path, most_s)
