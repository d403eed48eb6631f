"""The signal `claim`: a token about the user that an issuer has signed. A rejected one ends the decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import ClaimProblem, ClaimReport, Evidence, LocationProblem, Question, Reports
from gateway.model.location_rules import LocationRules
from gateway.model.section import ONE_OR_TWO, PlainSection, Sensitive, key, section
from gateway.model.signed_token import KeyFile, KeySource, KeyUrl, SharedKey
from gateway.model.units import LifetimeSeconds, Visible
from gateway.policy.location.signal import OwnSection, Reading, SectionReader, Signal, absolute_path, read_territory
from gateway.policy.location.trusted_edge import SignalInput
from providers.value import Value

_HEADER = "x-gateway-claim"
# fmt: off
Algorithm = Literal[
    "ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "HS256", "HS384", "HS512",
]
# fmt: on


class ClaimRules(Value, frozen=True):
    """The issuer whose claims are accepted, and how the claims must be signed."""

    issuer: str
    audience: str
    algorithms: frozenset[str]
    keys: KeySource
    territory: str = "territory"
    """The member of the token that names the territory."""
    preferences: str | None = None
    """The member with the user's preferences. None if they are not read."""
    consents: str = "consents"
    """The member with the recipients to which the user has agreed."""
    age_band: str | None = None
    """The member with the age band of the user. None if it is not read."""
    longest_s: float | None = None
    """The longest lifetime of a claim, or None without a bound."""


@section
class ClaimSection(PlainSection):
    """Signed claims about the user (a JWT in `x-gateway-claim`), and the issuer that is trusted."""

    issuer: Visible = key("The required value of `iss`.")
    audience: Visible = key("The required value of `aud`: the name of this gateway at the issuer.")
    algorithms: list[Algorithm] = key(
        "The accepted signature algorithms, such as [ES256]. HS… is allowed with `secret` only.", min_length=1
    )
    jwks: Annotated[str | None, Sensitive("a claim's keys", is_secret=False, is_shown=True)] = key(
        "The issuer's public keys: the https URL of a JWK set, or the absolute path of a file.", default=None
    )
    secret: Annotated[list[str] | None, ONE_OR_TWO, Sensitive("a claim's keys")] = key(
        "A shared secret instead of public keys: ${NAME} or ${file:/path}; a list of two while it is replaced.",
        default=None,
        repr=False,
    )
    territory: Visible = key("The member of the token with the user's territory.", default="territory")
    preferences: Visible | None = key(
        "The member with the user's preferences (language, units, time_zone, form). Default: not read.", default=None
    )
    consents: Visible = key(
        "The member with the recipients to whom the user has given standing consent: a list of names.",
        default="consents",
    )
    age_band: Visible | None = key(
        "The member with the age band of the user, for `age_bands` of a region. Default: not read.", default=None
    )
    longest: LifetimeSeconds | None = key(
        "The longest time from `iat` to `exp`, such as 15m. Each person or program that has a claim can use it.",
        default=None,
    )


@dataclass(frozen=True, slots=True)
class ClaimQuestion(Question):
    """A claim that still has to be verified."""

    token: str = field(repr=False)


def claim_of(reports: Reports) -> ClaimReport | None:
    """Return the report of a request's claim, or None. Raises TypeError if it has not been verified yet."""
    report = reports.get("claim")
    if report is None or isinstance(report, ClaimReport):
        return report
    raise TypeError("the claim has not been verified yet")


def _compiled(section: ClaimSection, reader: SectionReader) -> ClaimRules | None:
    shared = [name for name in section.algorithms if name.startswith("HS")]
    if section.secret is not None and len(shared) < len(section.algorithms):
        reader.error("algorithms", "with a `secret` only HS256, HS384 and HS512 can be used")
    if section.secret is None and shared:
        message = f"{', '.join(shared)} would use a public key as a shared secret"
        reader.error("algorithms", message, "leave it out, or configure a `secret` instead of `jwks`")
    if (section.jwks is None) == (section.secret is None):
        reader.error("", "needs `jwks` or a `secret`, and not both", "public keys (`jwks`) are the better choice")
        return None
    keys: KeySource | None = None
    if section.secret is not None:
        # RFC 7518, section 3.2, requires a key that is at least as long as the hash.
        least = int(max(shared, default="HS256")[2:]) // 8
        if secrets := reader.secret("secret", section.secret, "CLAIM_SECRET", least=least):
            keys = SharedKey(secrets)
    elif section.jwks is not None:
        keys = read_key_set(section.jwks, reader, "every claim")
    if keys is None:
        return None
    if section.longest is None:
        message = "has no `longest`: anybody who gets hold of a claim can use it until its `exp`"
        reader.warn("", message, "write the longest lifetime that your issuer gives, such as 15m")
    members = section.territory, section.preferences, section.consents, section.age_band, section.longest
    return ClaimRules(section.issuer, section.audience, frozenset(section.algorithms), keys, *members)


def read_key_set(jwks: str, reader: SectionReader, refused: str) -> KeySource | None:
    """Return the source of an issuer's public keys, or None after an error. `refused`: what is refused without it."""
    if path := absolute_path(jwks):
        if (state := reader.file(path)) is not None and state.problem:
            reader.warn("jwks", f"the file {state.problem}", f"{refused} is refused until it can be read")
        return KeyFile(path)
    if "://" not in jwks:
        reader.error("jwks", "is neither a URL nor the absolute path of a file", "such as https://issuer.example/jwks")
        return None
    service = reader.service("jwks", jwks)
    return KeyUrl(*service) if service is not None else None


def _report(_: LocationRules, given: SignalInput) -> ClaimQuestion | ClaimReport | None:
    tokens = given.values(_HEADER)
    if len(tokens) > 1:
        return ClaimReport(problem=ClaimProblem.REPEATED)
    return ClaimQuestion(tokens[0]) if tokens else None


def _read(config: ConfigVersion, _: Client | None, reports: Reports) -> Reading | None:
    claim = claim_of(reports)
    if claim is None:
        return None
    if claim.problem is not None:
        is_unchecked = claim.problem is ClaimProblem.UNCHECKED
        problem = LocationProblem.CLAIM_UNCHECKED if is_unchecked else LocationProblem.CLAIM
        return Reading(Evidence("claim", "", note=f"not accepted: {claim.problem.words}"), problem=problem)
    if claim.territory is None:
        return Reading(Evidence("claim", "", note="silent: it names no territory"))
    return read_territory(config, "claim", (claim.territory,))


CLAIM = Signal(
    "claim",
    _report,
    _read,
    headers=lambda _: (_HEADER,),
    can_locate=lambda config: config.location.rules.of(ClaimRules) is not None,
    section="claim",
    settings=OwnSection(
        ClaimSection, "Signed claims: the trusted issuer and its keys.", ClaimRules, _compiled, file_key="jwks"
    ),
    needs_lookup=True,
    source="a token in `x-gateway-claim`, signed by an issuer that you trust",
    use="your users have accounts with a home territory",
)
