"""Judge the members of a client's verified token: what is denied, the rule that holds, and the user. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.compact_jws import CompactJws
from gateway.model.client_token import Condition, RoleRule, TokenIssuer, TokenPath, TokenRule, Where, path_of
from gateway.model.location import ClaimProblem, ClaimRefused
from gateway.model.signed_token import TokenGivesNothing, TokenHolder
from gateway.policy.location.claim_verification import SignedMembers, is_for

_WORDS = frozenset({"scope", "scp"})
_MISSING: Any = object()


def issuer_of(issuers: Mapping[str, TokenIssuer], token: CompactJws) -> TokenIssuer:
    """Return the issuer that the token names, of which nothing is verified. Raises ClaimRefused for any other."""
    members = token.members
    of_issuer = [issuer for issuer in issuers.values() if issuer.issuer == members.get("iss")]
    if not of_issuer:
        raise ClaimRefused(ClaimProblem.ISSUER)
    for issuer in of_issuer:
        if is_for(members.get("aud"), issuer.audience, is_strict=True):
            return issuer
    raise ClaimRefused(ClaimProblem.AUDIENCE)


def check_denied(issuer: TokenIssuer, members: Mapping[str, object]) -> None:
    """Raise ClaimRefused if the issuer's rules deny a verified token, or TokenGivesNothing if that cannot be judged."""
    issued_at = members.get("iat")
    if issuer.issued_after is not None and not (isinstance(issued_at, int | float) and issued_at > issuer.issued_after):
        raise ClaimRefused(ClaimProblem.EARLY)
    for entry in issuer.denied:
        _look_at(issuer.name, (entry,), members)
        if _holds(entry, members):
            raise ClaimRefused(ClaimProblem.DENIED)


def user_in(issuer: TokenIssuer, members: Mapping[str, object]) -> str:
    """Return the user that a token names. Raises ClaimRefused if it names none."""
    user = _member(members, path_of(issuer.user))
    if not isinstance(user, str) or not user:
        raise ClaimRefused(ClaimProblem.MALFORMED)
    return user


def first_rule(issuer: str, rules: Sequence[TokenRule | RoleRule], members: Mapping[str, object]) -> int | None:
    """Return the index of the first rule that holds for a verified token of an issuer, or None.

    Raises TokenGivesNothing if a rule looks at a member that the issuer left out.
    """
    for index, rule in enumerate(rules):
        _look_at(issuer, rule.where, members)
        if all(_holds(entry, members) for entry in rule.where):
            return index
    return None


def holder_of(issuer: TokenIssuer, signed: SignedMembers) -> tuple[str, TokenHolder]:
    """Return the client of the rule that holds for a verified token, and what is kept of the token.

    Raises TokenGivesNothing if no rule holds, or one looks at a member that the issuer left out.
    """
    members = signed.members
    index = first_rule(issuer.name, issuer.clients, members)
    if index is None:
        raise TokenGivesNothing("client", issuer.name)
    rule, subject = issuer.clients[index], members.get("sub")
    user = user_in(issuer, members) if rule.names_user else None
    subject = subject if isinstance(subject, str) else None
    holder = TokenHolder(
        issuer.name, issuer.issuer, issuer.users_of, index + 1, signed.until, signed.digests, subject, user
    )
    return rule.gives, holder


def _look_at(issuer: str, where: Where, members: Mapping[str, object]) -> None:
    """Raise TokenGivesNothing if the issuer left a member out of the token because it has too many values.

    sources: https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference
    (`_claim_names`, `hasgroups`).
    """
    names = members.get("_claim_names")
    left_out = {*names} if isinstance(names, dict) else set()
    if "hasgroups" in members:
        left_out.add("groups")
    if left_out and any(path_of(name)[0] in left_out for name, _ in where):
        raise TokenGivesNothing("groups", issuer)


def _holds(entry: Condition, members: Mapping[str, object]) -> bool:
    path, values = path_of(entry[0]), entry[1]
    found = _member(members, path)
    if isinstance(found, str):
        words = found.split(" ") if len(path) == 1 and path[0] in _WORDS else ()
        return found in values or any(word in values for word in words)
    if isinstance(found, list):
        return any(_is_equal(one, value) for one in found for value in values)
    return any(_is_equal(found, value) for value in values)


def _is_equal(found: object, value: str | bool) -> bool:
    # In Python, 1 equals true.
    return type(found) is type(value) and found == value


def _member(members: Mapping[str, object], path: TokenPath) -> object:
    found: object = members
    for step in path:
        if isinstance(found, dict):
            found = found.get(step, _MISSING)
        elif isinstance(found, list) and step.isascii() and step.isdigit() and (step == "0" or step[0] != "0"):
            found = found[int(step)] if len(step) < 7 and int(step) < len(found) else _MISSING
        else:
            return _MISSING
    return found
