"""Run an exchange of a sign-in against a simulated issuer, and make subjects."""

import json
import time
from base64 import urlsafe_b64encode

import httpx

from providers.sign_in.exchange import Issued
from providers.sign_in.exchanges import ExchangeInput, SignInTerms, TokenHost, exchange_for
from providers.wire import WireResponse

ROLE = "arn:aws:iam::123456789012:role/gateway"
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x"


def subject(expires_in_s: float = 600.0) -> str:
    """Return a JSON Web Token without a valid signature."""
    parts = ({"alg": "RS256"}, {"exp": time.time() + expires_in_s, "sub": "system:serviceaccount:default:gateway"})
    return ".".join([*(urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts), "c2ln"])


def terms(kind: str, url: str, source: SignInTerms | None = None, /, **texts: str) -> SignInTerms:
    """Return the terms of a sign-in at simulated issuers."""
    host = TokenHost(url, f"/{kind.partition('_')[0]}")
    hosts = {"token": host, "sts": host, "impersonate": host}
    return SignInTerms(kind, hosts if source is None else {**hosts, "source": source.hosts["sts"]}, texts, source)


async def run(sign_in: SignInTerms, text: str = "", authorization: str = "") -> Issued:
    """Return what an exchange issues. Raises ExchangeFailed."""
    exchange = exchange_for(sign_in, ExchangeInput(time.time(), text, authorization))
    async with httpx.AsyncClient(trust_env=False) as client:
        call = next(exchange)
        while True:
            wire = call.wire
            request = {"headers": dict(wire.headers), "content": wire.body, "params": wire.query or None}
            answer = await client.request(wire.method, sign_in.hosts[call.host].origin + wire.path, **request)  # type: ignore[arg-type]
            try:
                call = exchange.send(WireResponse(answer.status_code, dict(answer.headers), answer.content, 0))
            except StopIteration as end:
                issued: Issued = end.value
                return issued
