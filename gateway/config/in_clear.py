"""Where a config has a secret written in itself: its text is then not kept in the history. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.config.problems import Path, dotted

__all__ = ["secrets_in_clear"]

_SECRETS: tuple[Path, ...] = (
    ("deployments", "*", "api_key"),
    ("deployments", "*", "headers", "*"),
    ("location", "edges", "*", "secret", "value"),
    ("location", "claim", "secret"),
    ("exporters", "*", "headers", "*"),
    ("secrets", "*"),
)


def secrets_in_clear(values: Mapping[str, object]) -> list[str]:
    """The keys of the config whose value is a secret, or may be one, and no `${…}`."""
    return sorted({dotted(path) for pattern in _SECRETS for path in _written((), values, pattern)})


def _written(path: Path, value: object, rest: Path) -> Iterator[Path]:
    if not rest:
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and "${" not in text for text in texts):
            yield path
        return
    name, below = rest[0], rest[1:]
    match value:
        case dict():
            for key, item in value.items():
                if name in ("*", key):
                    yield from _written((*path, key), item, below)
        case list() if name == "*":
            for index, item in enumerate(value):
                yield from _written((*path, index), item, below)
