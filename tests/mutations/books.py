"""Of the ledger: why every request is on the books once, and seen by those whose it is."""

from tests.mutations.mutation import Mutation

_LEDGER = "tests/contract/test_ledger.py::"
_LOST = "tests/contract/test_lost_gateways.py::"

BOOKS = {
    "closing twice counts twice": Mutation(
        "gateway/repositories/ledger.py",
        "            where=or_(_OPEN, found),\n",
        "",
        _LEDGER + "test_what_is_closed_stays_as_it_was_closed[sqlite]",
    ),
    "a late mark opens what was closed": Mutation(
        "gateway/repositories/ledger.py",
        '.where(LedgerRow.id == bindparam("of"), _OPEN)',
        '.where(LedgerRow.id == bindparam("of"))',
        _LEDGER + "test_what_is_closed_stays_as_it_was_closed[sqlite]",
    ),
    "an answer that was lost is an error for good": Mutation(
        "gateway/repositories/ledger.py",
        'row.on_conflict_do_nothing(index_elements=["id"])',
        "row",
        _LEDGER + "test_an_answer_that_is_lost_changes_nothing[sqlite]",
    ),
    "who was taken for dead is not heard": Mutation(
        "gateway/repositories/ledger.py",
        "where=or_(_OPEN, found),",
        "where=_OPEN,",
        _LOST + "test_who_was_taken_for_dead_has_the_last_word[sqlite]",
    ),
    "what the living have open is closed": Mutation(
        "gateway/repositories/leases.py",
        "if (await session.scalar(seen) or 0) != beat:",
        "if False:",
        _LOST + "test_who_lives_keeps_what_it_has_open[sqlite]",
    ),
    "what the dead had reserved stays so": Mutation(
        "gateway/repositories/leases.py",
        "reservations = await self._quotas.settle_whole(session, instance)",
        "reservations = 0",
        _LOST + "test_what_the_dead_had_reserved_counts_whole_and_once[sqlite]",
    ),
    "who only reserved is not looked for": Mutation(
        "gateway/repositories/leases.py",
        "select(ReservationRow.holder)\n",
        "select(InstanceRow.id)\n",
        _LOST + "test_who_died_with_nothing_but_a_reservation_is_found_too[sqlite]",
    ),
    "who beats is taken for dead": Mutation(
        "policies/beats.py",
        "if instance in before and before[instance][0] == beat",
        "if instance in before",
        "tests/unit/gateway/test_leases.py::test_a_beat_that_changes_is_none",
    ),
    "nobody could beat, and all are taken for dead": Mutation(
        "policies/beats.py",
        "self._seen if now - self._looked <= self._lease / 2 else {}",
        "self._seen",
        "tests/unit/gateway/test_leases.py::test_who_could_not_look_begins_anew",
    ),
    "the last piece comes before its row is closed": Mutation(
        "gateway/ledger.py",
        "            await self._ledger.closed(self)\n",
        "            pass\n",
        _LEDGER + "test_the_client_is_told_nothing_that_is_not_on_the_books[sqlite]",
    ),
    "the first piece comes before its row is there": Mutation(
        "gateway/gateway.py",
        "await course.before_first.pop()()",
        "course.before_first.pop()",
        _LEDGER + "test_the_client_is_told_nothing_that_is_not_on_the_books[sqlite]",
    ),
    "what was delivered is not marked": Mutation(
        "gateway/ledger.py",
        "if entry.has_news]",
        "if False]",
        _LEDGER + "test_what_was_delivered_is_marked[sqlite]",
    ),
    "a database that is away loses what ends meanwhile": Mutation(
        "gateway/ledger.py",
        "                self._failures += 1\n",
        "                self._failures += 1\n                self._closing.clear()\n",
        _LEDGER + "test_a_database_that_comes_back_gets_every_closing[sqlite]",
    ),
    "what cannot come on the books is begun": Mutation(
        "gateway/ledger.py",
        "        if self._failures:  # nothing",
        "        if False:  # nothing",
        _LEDGER + "test_what_cannot_come_on_the_books_is_refused[sqlite]",
    ),
    "who gave up waiting is kept in memory": Mutation(
        "gateway/ledger.py",
        "                entry.is_refused = True\n",
        "",
        _LEDGER + "test_who_gives_up_while_the_database_is_away_leaves_nothing[sqlite]",
    ),
    "what nothing came of is charged": Mutation(
        "gateway/records.py",
        "if began else 0.0,",
        "if True else 0.0,",
        _LEDGER + "test_what_gave_nothing_costs_nothing[sqlite]",
    ),
    "another tenant's usage is shown": Mutation(
        "gateway/usage.py",
        'return "" if caller.tenant is None and not tenant else caller.acting_for(tenant)',
        "return tenant",
        "tests/contract/test_usage.py::test_nobody_sees_another_tenants[sqlite]",
    ),
}
