"""Sign in to clouds without keys: what is sent to an issuer of tokens, and what its answer means. Pure."""

from __future__ import annotations

from providers.sign_in.exchange import Exchange, ExchangeCall, ExchangeFailed, ExchangeResult, Issued, read_code
from providers.sign_in.exchanges import ExchangeInput, SignInTerms, TokenHost, exchange_for, needs_sts
from providers.sign_in.kinds import KINDS, SignInKind

__all__ = [
    "KINDS",
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
    "needs_sts",
    "read_code",
]
