"""Compile `stores`: addresses with TLS, passwords, and territories inside the boundaries of the regions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from gateway.config.extras import check_extra
from gateway.config.problems import KeyPath
from gateway.config.regions import Regions, check_place
from gateway.config.schema.usage import StoreSection
from gateway.config.service_permits import is_this_machine
from gateway.config.territories import read_territory
from gateway.config.validation import Draft
from gateway.model.budget import StoreKind, Stores, StoreServer
from gateway.model.section import UnitError
from providers.auth import Secret
from providers.sites import OriginError, parse_origin
from providers.value import Value

_VERIFIED = "verify-full"
_SSL_MODES = {"disable": False, "allow": False, "prefer": False, "require": True, "verify-ca": True, _VERIFIED: True}


class _Form(Value, frozen=True):
    """The form of the addresses of a kind of store.

    `schemes` has whether each scheme means TLS, or None where the parameter `sslmode` decides.
    """

    schemes: Mapping[str, bool | None]
    example: str
    port: int
    database: re.Pattern[str]
    database_meaning: str
    ca_parameter: str
    variable: str


_FORMS: Mapping[StoreKind, _Form] = {
    "database": _Form(
        {"postgresql": None, "postgres": None},
        "postgresql://gateway@db.internal/gateway",
        5432,
        re.compile(r"[^/\x00-\x1f]{1,63}"),
        "must name the database",
        "sslrootcert",
        "GATEWAY_DATABASE_PASSWORD",
    ),
    "valkey": _Form(
        {"rediss": True, "valkeys": True, "redis": False, "valkey": False},
        "rediss://valkey.internal:6379",
        6379,
        re.compile(r"[0-9]{0,4}"),
        "may have the number of a database and nothing else",
        "ssl_ca_certs",
        "GATEWAY_VALKEY_PASSWORD",
    ),
}


def compile_stores(draft: Draft, regions: Regions) -> Stores | None:
    """Return the shared stores of a draft, or None if it has none."""
    section = draft.config.stores
    if section is None:
        return None
    is_whole = draft.is_whole("stores")
    if section.database is None and section.valkey is None and is_whole:
        draft.error(("stores",), "names no store", "add `database` and `valkey`, or remove it")
    if section.database is None and section.valkey is not None and is_whole:
        hint = "add `database`, or remove `stores`: one machine needs neither"
        draft.error(("stores", "valkey"), "needs `stores.database` too, which keeps the ledger and the keys", hint)
    database = _store(draft, "database", section.database, regions)
    stores = Stores(database, _store(draft, "valkey", section.valkey, regions))
    if section.database is not None:
        _check_secrets(draft)
        check_extra(draft, ("stores", "database"), "a database")
    if section.valkey is not None:
        check_extra(draft, ("stores", "valkey"), "Valkey")
    return stores


def _check_secrets(draft: Draft) -> None:
    """Report each key that all instances need. Without stores, the state directory has its own."""
    if not draft.is_whole("secrets") or draft.config.secrets.file is not None:
        return
    path: KeyPath = ("stores", "database")
    if draft.config.secrets.pepper is None:
        hint = "write secrets: {pepper: ${GATEWAY_PEPPER}}, the same for all instances"
        draft.error(path, "needs `secrets.pepper`, without which no API key can be checked", hint)
    if draft.config.secrets.identity is None and any(it.user_budget for it in draft.config.clients.values()):
        hint = "write secrets: {identity: ${IDENTITY_SECRET}}, the same for all instances"
        draft.error(path, "needs `secrets.identity`, because a client has a `user_budget`", hint)


def _store(draft: Draft, kind: StoreKind, section: StoreSection | None, regions: Regions) -> StoreServer | None:
    if section is None:
        return None
    path: KeyPath = ("stores", kind)
    territory = read_territory(draft, (*path, "territory"), section.territory)
    if territory is not None:
        keeps = "rows about" if kind == "database" else "counts of"
        check_place(draft, (*path, "territory"), territory, regions, keeps)
    at, variable = (*path, "password"), _FORMS[kind].variable
    passwords = draft.secret_versions(at, section.password, variable, term="password")
    try:
        return _read_url(kind, section.url, territory or "", passwords)
    except UnitError as error:
        draft.error((*path, "url"), error.message, error.hint)
        return None


def _read_url(kind: StoreKind, url: str, territory: str, passwords: tuple[Secret, ...]) -> StoreServer:
    """Return the server. Raises UnitError, whose message never has the address: it may contain a password."""
    form = _FORMS[kind]
    such_as = f"such as {form.example}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UnitError("is not a URL", such_as) from None
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UnitError("must be visible ASCII without spaces", such_as)
    if parts.scheme not in form.schemes:
        raise UnitError(f"must start with {' or '.join(f'{scheme}://' for scheme in form.schemes)}", such_as)
    if parts.password is not None:
        raise UnitError("must not contain a password", f"write password: ${{{form.variable}}}")
    if parts.fragment or "#" in url:
        raise UnitError("must have no fragment", such_as)
    origin = _origin(parts, such_as)
    database = unquote(parts.path.removeprefix("/"))
    if not form.database.fullmatch(database):
        raise UnitError(f"the path {form.database_meaning}", such_as)
    parameters = _parameters(parts, kind)
    is_local = is_this_machine(origin)
    uses_tls = form.schemes[parts.scheme]
    if uses_tls is None:
        mode = parameters.get("sslmode", "disable" if is_local and form.ca_parameter not in parameters else _VERIFIED)
        if not is_local and mode != _VERIFIED:
            message = f"the mode `sslmode={mode}` does not verify the server, which is not this machine"
            raise UnitError(message, f"remove it: `{_VERIFIED}` is the default")
        uses_tls = _SSL_MODES[mode]
    elif not uses_tls and not is_local:
        raise UnitError("is not encrypted, and the server is not this machine", "use rediss://")
    if form.ca_parameter in parameters and not uses_tls:
        hint = "use rediss://, or for a database sslmode=verify-full"
        raise UnitError(f"has `{form.ca_parameter}`, but no TLS", hint)
    return StoreServer(
        kind=kind,
        host=urlsplit(origin).hostname or "",
        port=port or form.port,
        territory=territory,
        database=database,
        user=unquote(parts.username or ""),
        passwords=passwords or (None,),
        uses_tls=uses_tls,
        ca_file=parameters.get(form.ca_parameter, ""),
    )


def _origin(parts: SplitResult, such_as: str) -> str:
    """Return the host in its normal spelling, as the origin of an https URL."""
    if not parts.hostname:
        raise UnitError("has no host name", such_as)
    try:
        return parse_origin(f"https://{parts.netloc.rpartition('@')[2]}")[0]
    except OriginError as error:
        raise UnitError(str(error), such_as) from None


def _parameters(parts: SplitResult, kind: StoreKind) -> dict[str, str]:
    """Return the parameters of the query. Unknown ones are refused: a misspelt one would weaken the connection."""
    form = _FORMS[kind]
    allowed = ("sslmode", form.ca_parameter) if kind == "database" else (form.ca_parameter,)
    given = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in given:
        if name not in allowed:
            raise UnitError(f"has a parameter that is not supported; allowed: {', '.join(allowed)}")
        if name == "sslmode" and value not in _SSL_MODES:
            raise UnitError("has an unknown `sslmode`", f"remove it, or write one of {', '.join(_SSL_MODES)}")
        if name == form.ca_parameter and not value.startswith("/"):
            raise UnitError(f"the file of `{name}` must have an absolute path")
    if len(dict(given)) != len(given):
        raise UnitError("has a parameter twice", "remove one")
    return dict(given)
