"""Compile `token_issuers`: issuers of clients' tokens, and the rules that give a token a client or a role."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.config.loading import Document
from gateway.config.location import SectionProblems
from gateway.config.problems import KeyPath, quoted
from gateway.config.schema.client_token import TokenIssuerSection
from gateway.config.validation import Draft, Findings, check_reference
from gateway.model.client_token import TokenIssuer, TokenPath, TokenRule, Where
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


def named_clients(draft: Draft) -> set[str]:
    """Return the names of the clients that rules of a draft name."""
    return {rule.client for issuer in draft.config.token_issuers.values() for rule in issuer.clients}


def compile_token_issuers(draft: Draft, findings: Findings, document: Document) -> dict[str, TokenIssuer]:
    """Return the issuers of a draft, by name."""
    compiled: dict[str, TokenIssuer] = {}
    claims = dict(draft.config.location).get("claim")
    names: dict[tuple[str, str], str] = {}
    for name, section in draft.config.token_issuers.items():
        path: KeyPath = ("token_issuers", name)
        other = names.setdefault((section.issuer, section.audience), name)
        if other != name:
            message = f"has the `issuer` and the `audience` of {quoted(other)}, so a token would belong to both"
            findings.error(path, message, "join their rules in one of them")
        _check_names(findings, path, section)
        if claims is not None and claims.issuer == section.issuer and section.user != "sub":
            message = "claims of this issuer name a user by `sub`: who comes by both is two users"
            findings.warn((*path, "user"), message, "write `user: sub`, or send tokens alone")
        keys = read_key_set(section.jwks, SectionProblems(findings, path, document), "every new token")
        if draft.config.clients_source == "file":
            for index, rule in enumerate(section.clients):
                check_reference(draft, findings, (*path, "clients", index, "client"), "clients", rule.client)
        clients = tuple(
            TokenRule(rule.client, _where(findings, (*path, "clients", index, "where"), rule.where), rule.user)
            for index, rule in enumerate(section.clients)
        )
        roles = tuple(
            TokenRule(rule.role, _where(findings, (*path, "roles", index, "where"), rule.where))
            for index, rule in enumerate(section.roles)
        )
        if keys is None:
            continue
        compiled[name] = TokenIssuer(
            name=name,
            issuer=section.issuer,
            audience=section.audience,
            algorithms=frozenset(section.algorithms),
            keys=keys,
            user=_path(findings, (*path, "user"), section.user),
            clients=clients,
            roles=roles,
            longest_s=section.longest,
            denied=_where(findings, (*path, "denied"), section.denied, warns=False),
            issued_after=section.issued_after,
        )
    return {name: replace(it, same_users=_same_users(it, compiled)) for name, it in compiled.items()}


def _same_users(issuer: TokenIssuer, issuers: Mapping[str, TokenIssuer]) -> str:
    """Return the first issuer that names the same users as this one, or an empty text if that is this one."""
    first = next(it for it in issuers.values() if (it.issuer, it.user) == (issuer.issuer, issuer.user))
    return first.name if first is not issuer else ""


def _check_names(findings: Findings, path: KeyPath, section: TokenIssuerSection) -> None:
    issuer = section.issuer
    if "{" in issuer:
        hint = "write the issuer as the tokens have it, with the id of your tenant"
        findings.error((*path, "issuer"), "has a placeholder, and no token has that issuer", hint)
    elif found := [step for step in issuer.lower().split("/") if step in _ANY_TENANT]:
        message = f"`{found[0]}` stands for every tenant, and no token has that issuer"
        findings.error((*path, "issuer"), message, "write the id of your tenant in its place")
    if _APP.fullmatch(section.audience):
        message = "is the id of an app, or of a vendor's API: tokens with which users sign in there are valid here too"
        hint = "register the gateway as an API of its own, to which no user signs in; then ignore this"
        findings.warn((*path, "audience"), message, hint)
    if not section.clients and not section.roles:
        findings.error(path, "needs `clients` or `roles`, or its tokens give nothing", "add a rule")


def _where(
    findings: Findings, path: KeyPath, members: Mapping[str, tuple[str | bool, ...]], *, warns: bool = True
) -> Where:
    where: list[tuple[TokenPath, tuple[str | bool, ...]]] = []
    for name, values in members.items():
        steps = _path(findings, (*path, name), name)
        if warns and steps[-1] in _CHANGEABLE:
            message = f"users can often change `{name}` themselves, and give themselves these rights"
            hint = "use groups, roles or the id of the user (`oid`, `sub`)"
            findings.warn((*path, name), message, hint)
        where.append((steps, values))
    return tuple(where)


def _path(findings: Findings, path: KeyPath, name: str) -> TokenPath:
    """Return the steps to a member: its name or, after a slash, a JSON Pointer (RFC 6901)."""
    if not name.startswith("/"):
        if not name:
            findings.error(path, "a member needs a name", "such as groups, or /realm_access/roles", key=True)
        return (name,)
    if _POINTER_ESCAPE.search(name):
        findings.error(path, f"{quoted(name)} is not a JSON Pointer", "write ~0 for `~` and ~1 for `/`", key=True)
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in name[1:].split("/"))
