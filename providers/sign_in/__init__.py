"""Sign in to clouds without keys: what is sent to an issuer of tokens, and what its answer means. Pure."""

from __future__ import annotations

from providers.sign_in.exchange import Exchange, ExchangeCall, ExchangeFailed, ExchangeResult, Issued, read_code
from providers.sign_in.exchanges import (
    ENTRA_HOSTS,
    SCOPES,
    ExchangeInput,
    SignInTerms,
    TokenHost,
    exchange_for,
    sts_host,
)
from providers.sign_in.kinds import SignInKind, sign_in_kinds, sign_in_regions

__all__ = [
    "ENTRA_HOSTS",
    "SCOPES",
    "Exchange",
    "ExchangeCall",
    "ExchangeFailed",
    "ExchangeInput",
    "ExchangeResult",
    "Issued",
    "SignInKind",
    "SignInTerms",
    "TokenHost",
    "exchange_for",
    "read_code",
    "sign_in_kinds",
    "sign_in_regions",
    "sts_host",
]
