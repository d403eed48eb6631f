"""Signed marks in a process: the keys, and a check by anybody, at two public paths."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.features.feature import Feature
from gateway.features.marks.policy import MOST_MARK_BYTES, MarkRules, key_set
from gateway.policy.doors import PublicPath
from providers.failures import InvalidRequest

_HASH = re.compile("[0-9a-f]{64}")


def keys(rules: MarkRules, _body: Mapping[str, object]) -> dict[str, object]:
    """Return the public keys as a JSON Web Key Set."""
    return key_set(rules.published)


def check(rules: MarkRules, body: Mapping[str, object]) -> dict[str, object]:
    """Return what the mark of a body proves about its text, or about a file with its hash. Raises InvalidRequest."""
    if unknown := body.keys() - {"mark", "text", "sha256"}:
        raise InvalidRequest(f"unknown field {min(unknown)[:40]!r}: send `mark` and `text`, or `sha256`")
    mark, text, sha256 = body.get("mark"), body.get("text"), body.get("sha256")
    if not isinstance(mark, str):
        raise InvalidRequest("`mark` must be a text: an entry of `x_gateway.labels[].marks`", "mark")
    if sha256 is not None and (text is not None or not isinstance(sha256, str) or not _HASH.fullmatch(sha256)):
        message = "`sha256` must be the SHA-256 of a file as 64 hexadecimal digits, in place of `text`"
        raise InvalidRequest(message, "sha256")
    if sha256 is None and not isinstance(text, str):
        raise InvalidRequest("`text` must be a text: the answer as the client got it", "text")
    return rules.check(mark, text if isinstance(text, str) else None, sha256 if isinstance(sha256, str) else None)


MARK_PATHS = (
    PublicPath("/.well-known/ai-marks.json", MarkRules, "marks", "Get the public keys of signed marks", keys),
    PublicPath(
        "/v1/marks/verify",
        MarkRules,
        "marks",
        "Check the signed mark of a text",
        check,
        {"mark": "an entry of `x_gateway.labels[].marks`", "text": "the answer as the client got it"},
        {"mark": MOST_MARK_BYTES},
    ),
)
MARKS = Feature("marks", kept=None, of_users=None, gate=None, watcher=None, paths=MARK_PATHS)
