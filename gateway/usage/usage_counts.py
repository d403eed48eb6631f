"""Count the calls of this process by client and project, for metrics. The ledger has the exact rows of all calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from gateway.usage.usage_row import UsageRow

_MOST_KEYS = 10_000
_OTHER = "other"
_Labels = tuple[str, ...]


class UsageCounts:
    """Calls, tokens and costs by client and project. The names are those of the configuration, and at most 10,000."""

    def __init__(self) -> None:
        # By client, project, source and currency: calls, input tokens, output tokens, nano-units.
        self._sums: dict[tuple[str | None, str | None, str | None, str | None], list[int]] = {}

    def add(self, row: UsageRow) -> None:
        """Count a call that has ended. Its cost counts in the operator's currency, or else in the vendor's."""
        currency, nano = row.currency, row.amount_nano
        if nano is None:
            currency, nano = row.vendor_currency, row.vendor_amount_nano
        key = row.client, row.project, row.usage_source, currency
        sums = self._sums.get(key)
        if sums is None:
            if len(self._sums) >= _MOST_KEYS:
                key = _OTHER, _OTHER, row.usage_source, currency
            sums = self._sums.setdefault(key, [0, 0, 0, 0])
        sums[0] += 1
        sums[1] += row.input_tokens
        sums[2] += row.output_tokens
        sums[3] += nano or 0

    def calls(self) -> Mapping[_Labels, int]:
        """Return the calls by client, project and source of the numbers."""
        found = Counter[_Labels]()
        for (client, project, source, _), sums in self._sums.items():
            found[client or "", project or "", source or ""] += sums[0]
        return found

    def tokens(self) -> Mapping[_Labels, int]:
        """Return the tokens by client, project and type."""
        found = Counter[_Labels]()
        for (client, project, _, _), sums in self._sums.items():
            for kind, number in (("input", sums[1]), ("output", sums[2])):
                found[client or "", project or "", kind] += number
        return found

    def costs(self) -> Mapping[_Labels, int]:
        """Return the costs in nano-units by client, project and currency. Calls without a known price have none."""
        found = Counter[_Labels]()
        for (client, project, _, currency), sums in self._sums.items():
            if currency is not None:
                found[client or "", project or "", currency] += sums[3]
        return found
