"""The evidence for a fact: the page that states it, a quotation, and the day on which the page was read."""

from __future__ import annotations

from datetime import date

from providers.value import Value


class Citation(Value, frozen=True):
    """The evidence for a fact.

    Examples:
        `Citation("https://vendor.example/regions", "data stays in the EU", date(2026, 11, 20))`
    """

    source: str = ""
    """The URL of the page, or another text for a fact outside this repository."""
    quote: str = ""
    """The page's own words, in a few words."""
    as_of: date | None = None
    """The day on which the page was read."""
    unconfirmed: str = ""
    """The part of the fact that no page confirms, and why; empty if the page confirms all."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The parts that the citation lacks. `unconfirmed` replaces the URL and the quotation, but not the day."""
        has_url = self.source.startswith("https://") and "." in self.source
        lacks = [] if has_url or self.unconfirmed else ["url"]
        lacks += [] if self.quote or self.unconfirmed else ["quote"]
        return (*lacks, *([] if self.as_of is not None else ["as_of"]))


NO_CITATION = Citation()
"""The citation of a fact without a source."""
