"""Export and erase what an installation holds of one end user: for the admin API and for the command `gateway subject`.

Rows, totals and budgets name an end user by pseudonym. The data of features and receipts name none: they are found
by the request ids of the rows. docs/prove/personal-data.md lists every place, and what an erasure leaves.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress

from gateway.features.running import KEPT, OF_USERS
from gateway.installation import ledger_of, pseudonym_keys, usage_reader
from gateway.model.config_version import ConfigVersion
from gateway.model.kept_metadata import StoredRequest
from gateway.operator_errors import StateError
from gateway.policy.client_users import names_of, people_named
from gateway.service.budget_admin import PSEUDONYM, BudgetAdmin, BudgetOwner, expect_one_issuer, people_of
from gateway.service.client_admin import AdminRefused, ClientAdmin, Json
from gateway.state.audit import path_of
from gateway.state.receipts import receipts_of
from gateway.usage.accounting import known_pseudonyms
from gateway.usage.gate import CounterKind, GateUnavailable
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.ledger import Person
from gateway.usage.reports import UsageQuery
from gateway.usage.usage_row import UsageRow, decode_row, row_data

_BY = ("day", "client", "user", "model")
_CHAINED = "each line has the hash of the line before it, so none can be removed"
_NOUNS = " and ".join(kept.noun for kept in KEPT)
_OTHER_INSTANCES = f"{_NOUNS} go within 10 seconds, or at the next start; receipts are exported there"
_KEPT_RECEIPT = "no end user is in it, and its request id leads to none after an erasure; it is deleted after"
_ELSEWHERE = (
    ("logs and traces", "they name no end user, but request id, client and territory; delete them where they are kept"),
    ("logged prompts", "lines of regions with `log_prompts` have texts; delete them by the request ids of the export"),
    ("backups", "copies that were made earlier; delete them, or erase again after a restore"),
    ("providers", "what they keep of prompts and answers; ask each one of the rows"),
    *(place for kept in KEPT for place in kept.elsewhere),
    ("free pages of `journal/` and of PostgreSQL", "pseudonyms, until the pages are used again"),
)


class SubjectAdmin:
    """The actions on an end user, under a config version with the stored clients.

    Methods raise AdminRefused and StateError.
    """

    def __init__(self, admin: ClientAdmin, config: ConfigVersion) -> None:
        self._admin = admin
        self._config = config
        self._directory = admin.directory
        self._budgets = BudgetAdmin(admin, config)

    def export(self, user: str, client: str | None, issuer: str | None = None) -> Json:
        """Return all that is stored of an end user, with the places that are not read."""
        person = self._person(user, client, issuer)
        rows, totals = self._usage(person)
        requests, clients = _requests(rows), _clients(rows)
        self._admin.note("subject_exported", {"client": client or "", "rows": len(rows)})
        return {
            "subject": {"user": user, "client": client, "issuer": issuer, "pseudonyms": person.pseudonyms},
            "usage": {"rows": [row_data(row) for row in rows], "totals": totals},
            "budgets": self._counters(user, client, issuer),
            **{kept.member: kept.export(self._directory, requests) for kept in KEPT},
            **{
                it.member: it.export(self._config, self._directory, person.pseudonyms, client, clients)
                for it in OF_USERS
            },
            "receipts": receipts_of(self._directory, requests),
            "elsewhere": self._elsewhere(person, *self._unnamed(issuer)),
        }

    def erase(self, user: str, client: str | None, issuer: str | None = None) -> Json:
        """Remove an end user from all stores. Rows and sums stay, without the person. Return what remains, and why.

        The rows of calls that run now, and those that wait on other instances, lose the person when they arrive.
        """
        person, at_ns = self._person(user, client, issuer), time.time_ns()
        rows, _ = self._usage(person)
        requests, clients = _requests(rows), _clients(rows)
        receipts = len(receipts_of(self._directory, requests))
        # First, because the rows lead to it: a command that failed can be repeated.
        of_features = {kept.member: kept.erase(self._directory, requests) for kept in KEPT}
        for it in OF_USERS:
            of_features[it.member] = it.erase(self._config, self._directory, person.pseudonyms, client, clients)
        with closing(ledger_of(self._config, self._directory)) as ledger:
            changed_rows, totals = ledger.erase(person, at_ns, requests)
            with closing(Journal.open(self._directory / FOLDER)) as journal:
                try:
                    rows_of = {key: decode_row(data) for key, data in journal.waiting(sys.maxsize)}
                    waiting = {key: row for key, row in rows_of.items() if person.is_of(row)}
                    ledger.insert([*waiting.values()])
                    journal.remove(waiting)
                except (GateUnavailable, ValueError) as error:
                    raise StateError(f"the rows that wait for the ledger can't be changed: {error}") from error
        owners = clients | ({client} if client is not None else frozenset())
        erased = {
            "usage_rows": changed_rows + len(waiting),
            "daily_totals": totals,
            "budgets": self._budgets.drop_user(person.pseudonyms, owners, every=client is None),
            **of_features,
        }
        self._admin.note("subject_erased", {"client": client or "", **erased})
        self._admin.store.compact()
        days = self._config.receipts.keep_s / 86_400
        kept = [("receipts", f"{receipts}: {_KEPT_RECEIPT} {days:g} days")] if receipts else []
        subject = {"client": client, "pseudonyms": person.pseudonyms}
        remains = self._elsewhere(person, *self._unnamed(issuer), *kept)
        return {"subject": subject, "erased": erased, "remains": remains}

    def _person(self, user: str, client: str | None, issuer: str | None) -> Person:
        if not user:
            raise AdminRefused(400, "invalid_request", "`user` must name the end user")
        if PSEUDONYM.fullmatch(user):
            return Person((user,), client)
        keys = pseudonym_keys(self._config, self._directory)
        people = people_of(self._config, self._directory, user, issuer)
        found = {
            of: Person(tuple(it for name in names for it in known_pseudonyms(self._config, keys, name)), client)
            for of, names in people.items()
        }
        if issuer is None and len(people) > 2:
            expect_one_issuer(user, [of for of, person in found.items() if of and self._is_known(person)])
        return Person(tuple(dict.fromkeys(it for person in found.values() for it in person.pseudonyms)), client)

    def _unnamed(self, issuer: str | None) -> Iterator[tuple[str, str]]:
        """Yield a note on an issuer that is not in the configuration. A removed one may still have people."""
        known = names_of(self._config, "")
        if issuer is not None and not known.keys() >= people_named(self._config, "", issuer).keys():
            yield f"issuer {issuer!r}", f"it is not in the configuration, which names: {', '.join(known) or 'none'}"

    def _is_known(self, person: Person) -> bool:
        rows, totals = self._usage(person)
        given = self._config, self._directory, person.pseudonyms, person.client, _clients(rows)
        return bool(rows or totals or any(it.export(*given) for it in OF_USERS))

    def _usage(self, person: Person) -> tuple[list[UsageRow], object]:
        """Return the rows and the daily sums of a person."""
        query = UsageQuery.of_person(person, _BY)
        with usage_reader(self._config.stores, self._directory) as reader:
            totals = reader.report(query).data()["groups"]
            return [*reader.rows(query)], totals

    def _counters(self, user: str, client: str | None, issuer: str | None) -> object:
        with suppress(AdminRefused):  # the client was removed
            return self._budgets.show(BudgetOwner(CounterKind.USER, user, client, issuer))["budgets"]
        return []

    def _elsewhere(self, person: Person, *more: tuple[str, str]) -> list[Json]:
        """Return the places that are not read or not changed, with the reason of each."""
        found = [*more]
        if self._config.stores is not None and self._config.stores.database is not None:
            found.append(("other instances of the cell", _OTHER_INSTANCES))
        path = path_of(self._directory)
        lines = path.read_bytes().splitlines() if path.exists() else []
        # Changes of the budgets of this end user.
        if count := sum(any(name.encode() in line for name in person.pseudonyms) for line in lines):
            found.append(("audit trail", f"{count} lines on budgets have the pseudonym: {_CHAINED}"))
        return [{"place": place, "why": why} for place, why in (*found, *_ELSEWHERE)]


def _clients(rows: list[UsageRow]) -> frozenset[str]:
    return frozenset([row.client for row in rows if row.client])


def _requests(rows: list[UsageRow]) -> list[StoredRequest]:
    found = {(row.request, row.client): row for row in reversed(rows) if row.request}
    return [StoredRequest(request, client, row.assistant, row.time_ns) for (request, client), row in found.items()]
