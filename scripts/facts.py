"""List the facts of this checkout that end soon, or were read long ago (`make facts`). Fail for those that have ended.

A model, a site, an API version, a token host, a vendor's whole API, a price or a law that has ended must name what
replaces it, and no configuration that ships may use it. A price that was read long ago may be wrong. An example whose
model fails or is redirected within 90 days by any reading fails too.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from gateway.config.loading import load_document
from gateway.features.configuration import compile_config
from gateway.model.approval import begun_everywhere
from providers.adapter import Adapter, KnowsOffers
from providers.catalogue.prices import Offers
from providers.evidence import Citation
from providers.registry import Registry, load_registry
from providers.sign_in.kinds import vendor_hosts

ROOT = Path(__file__).parents[1]
LAWS = ROOT / "gateway/config/data/laws.toml"
_SOON = timedelta(days=180)
_OLD = timedelta(days=180)
_OLD_PRICE = timedelta(days=120)
_LEFT = timedelta(days=90)
_EXAMPLES = ("README.md", "config/**/*.yaml", "deploy/**/*.y*ml", "docs/**/*.md", "gateway/api/openapi_examples.json")
_NOT_EXAMPLES = ("docs/reference/models.md", "docs/reference/providers.md")
"""Generated lists of all that is known."""
_NAMED = re.compile(r"""provider["']?:\s*["']?([\w-]+)(?:[^{}]|\$\{\w+\}){0,200}?\bmodel["']?:\s*["']?([^\s,}"']+)""")
"""A provider and the model of the same deployment."""
SHOW_AN_END: dict[tuple[str, str], str] = {}
"""Why a page has a model that ends, by the page and the model."""


def main() -> int:
    """Print what ends soon, what is old and what has ended, by today's clock. Return 1 if something has ended."""
    today = datetime.now(UTC).date()
    for title, lines in {"ends within 180 days": ending(today), "read long ago": old(today)}.items():
        print(f"{title}: {len(lines)}", *lines, sep="\n  ")
    if problems := [*ended(ROOT, today), *examples(ROOT, today)]:
        print("make facts: has ended, and nothing replaced it", *problems, sep="\n  ", file=sys.stderr)
        return 1
    return 0


def ended(root: Path, today: date) -> list[str]:
    """Return what has ended by this day without a replacement, and each shipped deployment that has ended."""
    registry = load_registry()
    lines = [
        f"{provider}: {', '.join(models)} on {day}: write what replaces it"
        for provider, models, day, instead in _ends(registry)
        if day <= today and not instead
    ]
    now_s = begun_everywhere(today)
    for path in sorted((root / "config").rglob("*.yaml")):
        data = path.read_text("utf-8")
        if "\ndeployments:" not in data:
            continue
        document = load_document(path, {}, secrets=False, clock=lambda: now_s)
        lines += [str(it) for it in compile_config(document, registry=registry).warnings if it.fails_check]
    return lines


def examples(root: Path, today: date, shown: Mapping[tuple[str, str], str] = SHOW_AN_END) -> list[str]:
    """Return each example whose model fails or is redirected within 90 days, and each entry of `shown` without use."""
    adapters, lines, used = load_registry().adapters, list[str](), set[tuple[str, str]]()
    paths = {path for pattern in _EXAMPLES for path in root.glob(pattern)}
    for path in sorted(paths - {root / name for name in _NOT_EXAMPLES}):
        name = str(path.relative_to(root))
        for provider, model in dict.fromkeys(_NAMED.findall(path.read_text("utf-8"))):
            day = _leaves_on(adapters[provider], model) if provider in adapters else None
            if day is not None and day <= today + _LEFT:
                used.add((name, model))
                lines += [f"{name}: {provider} {model} ends on {day}"] if (name, model) not in shown else []
    return [*lines, *(f"{' '.join(it)}: remove it from SHOW_AN_END" for it in shown.keys() - used)]


def _leaves_on(adapter: Adapter, model: str) -> date | None:
    """Return the first day on which a model fails or is redirected at any site, firm or not; not an earliest one."""
    offers = adapter.offers if isinstance(adapter, KnowsOffers) else Offers()
    rows = {row for site in ("", *adapter.sites) for row in offers.retirements_at(model, site)}
    days = [row.redirects for row in rows] + [row.on for row in rows if not row.earliest]
    return min(filter(None, days), default=None)


def ending(today: date) -> list[str]:
    """Return a line for each end of the next 180 days, the first one first."""
    found = [(day, provider, models, instead) for provider, models, day, instead in _ends(load_registry())]
    return [
        f"{day}  {provider}  {', '.join(models)}{f' -> {instead}' if instead else ''}"
        for day, provider, models, instead in sorted(found)
        if today < day <= today + _SOON
    ]


def old(today: date) -> list[str]:
    """Return a line for each fact that was last read too long ago, the oldest first."""
    return [
        f"{day}  {subject}" for day, subject, most in sorted({*_read()}, key=lambda it: it[:2]) if today - day > most
    ]


def day_of(root: Path) -> date:
    """Return the day of the last commit or, without git, of the last release in the changelog."""
    command = ("git", "log", "-1", "--format=%cs")
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode == 0 and (day := done.stdout.strip()):
        return date.fromisoformat(day)
    heads = (line for line in (root / "CHANGELOG.md").read_text("utf-8").splitlines() if line.startswith("## ["))
    days = [date.fromisoformat(line.split(" - ")[1].strip()) for line in heads if " - " in line]
    return max(days, default=date.min)


def _ends(registry: Registry) -> Iterator[tuple[str, Sequence[str], date, str]]:
    """Yield each end: by whom it is stated, of what, the first day without it, and what replaces it."""
    for name, adapter in registry.adapters.items():
        if not isinstance(adapter, KnowsOffers):
            continue
        for row in adapter.offers.retirements:
            unsure = "" if row.is_stated and not row.earliest else "its day is not firm"
            for ends in filter(None, (row.redirects, row.on)):
                yield name, row.named, ends, row.instead or row.to or unsure
        for one in adapter.offers.prices:
            if (day := one.price.ends) is not None:
                later = {it.models for it in adapter.offers.prices if it.price.valid_from == day}
                yield f"{name}: price", one.models, day, "a later price" if one.models in later else ""
    for name, host in vendor_hosts().items():
        if host.ends is not None:
            yield "token host", (name,), host.ends, host.instead
    for law in tomllib.loads(LAWS.read_text("utf-8"))["laws"]:
        if "ends" in law:
            yield "law", (law["duty"],), law["ends"], law.get("instead", "")


def _read() -> Iterator[tuple[date, str, timedelta]]:
    """Yield each fact with the day on which its source was read, and how long that may be ago."""
    for name, adapter in load_registry().adapters.items():
        cited: list[tuple[str, Citation, timedelta]] = [
            (f"{name}: site {site.name}", site.citation, _OLD) for site in adapter.sites.values()
        ]
        if isinstance(adapter, KnowsOffers):
            known = adapter.offers
            cited += [
                (f"{name}: price of {', '.join(it.models)}", it.price.citation, _OLD_PRICE) for it in known.prices
            ]
            cited += [(f"{name}: end of {', '.join(it.models)}", it.citation, _OLD) for it in known.retirements]
        yield from ((it.as_of, subject, most) for subject, it, most in cited if it.as_of is not None)
    hosts = vendor_hosts().items()
    yield from ((it.as_of, f"token host {name}", _OLD) for name, it in hosts if it.as_of is not None)
    for path in sorted((ROOT / "gateway").rglob("*.toml")):
        data, name = tomllib.loads(path.read_text("utf-8")), str(path.relative_to(ROOT))
        rows = [row for some in data.values() if isinstance(some, list) for row in some if isinstance(row, dict)]
        dated = {name: data, **{f"{name}: {row.get('duty') or row.get('law')}": row for row in rows}}
        yield from ((day, it, _OLD) for it, row in dated.items() if isinstance(day := row.get("as_of"), date))


if __name__ == "__main__":
    raise SystemExit(main())
