"""Our keys in what a provider says: found whole, in part, cut off, and as what was signed with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from gateway.model.deployment import Deployment
from providers.auth import Secret

_KEY = "[redacted]"
_SHORTEST = 8
"""A part of a credential that is shorter is a word like another, such as `id`."""
_LEAST_OF_KEY = 4
# What is signed for one request, or for an hour: a JSON Web Token (RFC 7519), which no config holds.
_TOKEN = re.compile(r"(?<![\w-])eyJ[\w-]{8,}(?:\.[\w-]*)+")
_ID = re.compile(r"[!-~]{1,200}")
_OPEN_ACCOUNT_FIELDS = frozenset(
    "type project_id universe_domain auth_uri token_uri auth_provider_x509_cert_url".split()
)


def without_keys(text: str, deployment: Deployment) -> str:
    """The text without any key of the deployment, whole or in part."""
    for part in _keys(deployment):
        text = _without_cut(_struck(text, part), part)
    return _without_begun(text, deployment)


def _struck(text: str, key: str) -> str:
    """The text without the key. A short one, such as the `x` that a server of one's own is given, is no part of other
    words."""
    if key not in text or len(key) >= _SHORTEST:
        return text.replace(key, _KEY)
    # Words of these letters alone have spaces around them: in Chinese a key stands between the letters of others.
    return re.sub(rf"(?<![0-9A-Za-z]){re.escape(key)}(?![0-9A-Za-z])", _KEY, text)


def _keys(deployment: Deployment) -> Iterator[str]:
    for secret in (*deployment.credentials, *(value for _, value in deployment.headers)):
        yield from parts_of(secret)


def is_no_id(text: str, deployment: Deployment) -> bool:
    """Whether what a provider calls its id of the call is not one word, or has a key in it."""
    if _ID.fullmatch(text) is None or _without_begun(text, deployment) != text:
        return True
    return any(_struck(text, part) != text for part in _keys(deployment))


def _without_begun(text: str, deployment: Deployment) -> str:
    """The text without tokens, and without the beginning of a key, as where dots stand for what follows."""
    for secret in deployment.credentials:
        for part in parts_of(secret):
            begun = part[:_SHORTEST]
            if len(part) < _SHORTEST or begun not in text or begun in _KEY or "://" in part[: _SHORTEST + 1]:
                continue
            before, *others = text.split(begun)
            text = _KEY.join([before, *(_without_start(other, part[_SHORTEST:]) for other in others)])
    return _TOKEN.sub(_KEY, text)


def _without_start(text: str, key: str) -> str:
    """The text without as much of the key as it starts with."""
    size = 0
    while size < len(key) and text.startswith(key[size], size):
        size += 1
    return text[size:]


def _without_cut(text: str, key: str) -> str:
    """The text without the beginning of a key on which it was cut off."""
    if key[:_LEAST_OF_KEY] not in text:
        return text
    for size in range(len(key) - 1, _LEAST_OF_KEY - 1, -1):
        if text.endswith(key[:size]):
            return f"{text[:-size]}{_KEY}"
    return text


def parts_of(secret: Secret) -> Iterator[str]:
    """The secret, and each part of it that would be of use to a thief: of a pair, of a file in JSON, of a PEM block."""
    whole = secret.reveal()
    yield whole
    try:
        fields = json.loads(whole)
    except ValueError:
        fields = None
    if isinstance(fields, dict):
        values = [value for name, value in fields.items() if name not in _OPEN_ACCOUNT_FIELDS]
        parts = [line for value in texts_in(values) for line in (value, *value.splitlines())]
    else:
        parts = whole.split(":")
    yield from (part for part in parts if len(part) >= _SHORTEST)


def texts_in(value: object) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from texts_in(one)
