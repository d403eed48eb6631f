"""Compile `token_issuers`: issuers of clients' tokens, and the rules that give a token a client or a role."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.config.location import SectionProblems
from gateway.config.problems import KeyPath, quoted
from gateway.config.validation import Draft, Findings, check_reference
from gateway.model.client_token import TokenIssuer, TokenIssuerRules, Where, path_of
from gateway.model.section import members_of
from gateway.policy.location.claim import read_key_set
from providers.value import replace

_ANY_TENANT = frozenset({"common", "organizations"})
_CHANGEABLE = frozenset({"email", "preferred_username", "upn", "name"})
_POINTER_ESCAPE = re.compile(r"~(?![01])")
# The forms of the ids of apps: of Entra ID, Google and Okta; and audiences of the vendors' own APIs.
# sources: https://learn.microsoft.com/en-us/entra/identity-platform/id-token-claims-reference (`aud`),
# https://developers.google.com/identity/openid-connect/openid-connect (`aud`),
# https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/ (`aud`).
_APP = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|.*\.apps\.googleusercontent\.com|0oa[0-9A-Za-z]{17}"
    r"|https://(graph\.microsoft\.com|management\.azure\.com|www\.googleapis\.com).*|account",
    re.IGNORECASE,
)


def compile_token_issuers(draft: Draft) -> dict[str, TokenIssuer]:
    """Return the issuers of a draft, by name."""
    compiled: dict[str, TokenIssuer] = {}
    claims = dict(draft.config.location).get("claim")
    names: dict[tuple[str, str], str] = {}
    for name, rules in draft.config.token_issuers.items():
        path: KeyPath = ("token_issuers", name)
        other = names.setdefault((rules.issuer, rules.audience), name)
        if other != name:
            message = f"has the `issuer` and the `audience` of {quoted(other)}, so a token would belong to both"
            draft.error(path, message, "join their rules in one of them")
        _check_names(draft, path, rules)
        if not rules.clients and not rules.roles and draft.is_whole("token_issuers", name):
            draft.error(path, "needs `clients` or `roles`, or its tokens give nothing", "add a rule")
        if claims is not None and claims.issuer == rules.issuer and rules.user != "sub":
            message = "claims of this issuer name a user by `sub`: who comes by both is two users"
            draft.warn((*path, "user"), message, "write `user: sub`, or send tokens alone")
        if rules.issued_after is not None and rules.issued_after > draft.document.read_at_s:
            message = "is in the future, so no token is accepted until then"
            draft.warn((*path, "issued_after"), message, "write the time before which tokens are not trusted")
        keys = read_key_set(rules.jwks, SectionProblems(draft, path), "every new token")
        for index, rule in enumerate(rules.clients):
            if draft.config.clients_source == "file":
                check_reference(draft, (*path, "clients", index, "client"), "clients", rule.gives)
            _check_rights(draft, (*path, "clients", index, "where"), rule.where)
        for index, role in enumerate(rules.roles):
            _check_rights(draft, (*path, "roles", index, "where"), role.where)
        _check_member(draft, (*path, "user"), rules.user)
        for member, _ in rules.denied:
            _check_member(draft, (*path, "denied", member), member)
        if keys is not None:
            compiled[name] = TokenIssuer(**members_of(rules), name=name, keys=keys)
    return {name: replace(it, same_users=_same_users(it, compiled)) for name, it in compiled.items()}


def _same_users(issuer: TokenIssuer, issuers: Mapping[str, TokenIssuer]) -> str:
    """Return the first issuer that names the same users as this one, or an empty text if that is this one."""
    user = path_of(issuer.user)
    first = next(it for it in issuers.values() if (it.issuer, path_of(it.user)) == (issuer.issuer, user))
    return first.name if first is not issuer else ""


def _check_names(findings: Findings, path: KeyPath, rules: TokenIssuerRules) -> None:
    issuer = rules.issuer
    if "{" in issuer:
        hint = "write the issuer as the tokens have it, with the id of your tenant"
        findings.error((*path, "issuer"), "has a placeholder, and no token has that issuer", hint)
    elif found := [step for step in issuer.lower().split("/") if step in _ANY_TENANT]:
        message = f"`{found[0]}` stands for every tenant, and no token has that issuer"
        findings.error((*path, "issuer"), message, "write the id of your tenant in its place")
    if _APP.fullmatch(rules.audience):
        message = "is the id of an app, or of a vendor's API: tokens with which users sign in there are valid here too"
        hint = "register the gateway as an API of its own, to which no user signs in; then ignore this"
        findings.warn((*path, "audience"), message, hint)


def _check_rights(findings: Findings, path: KeyPath, where: Where) -> None:
    """Check the members of a rule, and warn of those that their users choose."""
    for member, _ in where:
        _check_member(findings, (*path, member), member)
        if path_of(member)[-1] in _CHANGEABLE:
            message = f"users can often change `{member}` themselves, and give themselves these rights"
            findings.warn((*path, member), message, "use groups, roles or the id of the user (`oid`, `sub`)")


def _check_member(findings: Findings, path: KeyPath, member: str) -> None:
    """Report a member without a name, and a text that should be a JSON Pointer."""
    if not member:
        findings.error(path, "a member needs a name", "such as groups, or /realm_access/roles", key=True)
    elif member.startswith("/") and _POINTER_ESCAPE.search(member):
        findings.error(path, f"{quoted(member)} is not a JSON Pointer", "write ~0 for `~` and ~1 for `/`", key=True)
