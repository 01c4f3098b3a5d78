"""Of the scheduler: what is wanted, who leads, what moves."""

from tests.mutations.mutation import Mutation

_CONTROL = "tests/unit/scheduler/test_control.py::"
_STATES = "tests/unit/scheduler/test_states.py::"
_LOADS = "tests/unit/scheduler/test_loads.py::"
_OFFICE = "tests/unit/scheduler/test_office.py::"
_SCALING = "tests/unit/policies/test_autoscaling.py::"
_ROWS = "tests/contract/test_fleet_rows.py::"
_SERVICE = "tests/contract/test_fleet_service.py::"
_MOVES = "tests/contract/test_rebalancing.py::"
_TERMS = "tests/contract/test_terms.py::"
_DEMAND = "tests/contract/test_demand.py::"
_FENCED = "test_a_leader_that_was_followed_by_another_writes_nothing"

SCHEDULER: dict[str, Mutation] = {
    "a leader that was stopped answers when it goes on": Mutation(
        "scheduler/office.py",
        "if self._reign is None or self._clock.now() >= self._until:",
        "if self._reign is None:",
        _OFFICE + "test_a_reign_ends_by_itself_unless_the_lock_is_held",
    ),
    "what began in one reign goes on in the next": Mutation(
        "scheduler/office.py",
        "if self.reign() is not reign:",
        "if self.reign() is None:",
        _OFFICE + "test_what_began_in_one_reign_does_not_go_on_in_the_next",
    ),
    "who watches is not told that a reign is over": Mutation(
        "scheduler/office.py",
        "            reign.fleet.tell()  # whoever watches it looks, and is told that it is over\n",
        "",
        _OFFICE + "test_watchers_are_woken_when_a_reign_ends",
    ),
    "who led before writes on": Mutation(
        "scheduler/repository.py",
        "if row is None or row.term != term:",
        "if row is None:",
        _ROWS + _FENCED,
    ),
    "two leaders have the same term": Mutation(
        "scheduler/repository.py",
        "row.term, row.holder, row.since_us = row.term + 1,",
        "row.term, row.holder, row.since_us = row.term,",
        _ROWS + "test_each_who_takes_over_has_a_higher_term",
    ),
    "a move that left is void when it is told of again": Mutation(
        "scheduler/repository.py",
        "                    .where(MigrationRow.state != MigrationState.LEFT.value)\n",
        "",
        _ROWS + "test_a_move_is_logged_settled_and_forgotten",
    ),
    "gateways hear a leader that was followed by another": Mutation(
        "gateway/workers.py",
        "return term in {0, self._term}",
        "return True",
        _TERMS + "test_a_leader_of_a_lower_term_is_not_heard",
    ),
    "workers obey a leader that was followed by another": Mutation(
        "gpu_worker/clients.py",
        "return term in {0, self._term}",
        "return True",
        _TERMS + "test_a_leader_of_a_lower_term_is_not_heard",
    ),
    "who is cordoned is named to gateways": Mutation(
        "scheduler/fleet.py",
        "if self._state(m, now) is WorkerState.SERVING]",
        "if not m.report.draining]",
        _STATES + "test_a_worker_does_what_is_wished_of_it",
    ),
    "a worker that has drained drains again when it comes back": Mutation(
        "scheduler/fleet.py",
        "            self.wishes.workers[worker] = WorkerWish.CORDON\n",
        "",
        _STATES + "test_who_was_to_drain_and_has_is_cordoned_when_it_is_gone",
    ),
    "a worker that died while it drained is not to drain any more": Mutation(
        "scheduler/fleet.py",
        "return report.draining and not (report.running or report.waiting)",
        "return report.draining",
        _STATES + "test_who_was_to_drain_and_has_is_cordoned_when_it_is_gone",
    ),
    "nobody writes down that a worker has drained": Mutation(
        "scheduler/loop.py",
        "            await self._drains.drained(cordoned)\n",
        "",
        _SERVICE + "test_who_has_drained_comes_back_cordoned",
    ),
    "orders wait for the next report": Mutation(
        "scheduler/servicer.py",
        "        seat.on_order(woken.set)\n",
        "",
        _SERVICE + "test_what_is_wanted_is_said_before_the_next_report",
    ),
    "an order is given with every answer": Mutation(
        "scheduler/fleet.py",
        "told, self._member.orders = self._member.orders, []",
        "told = self._member.orders",
        _SERVICE + "test_what_is_wanted_is_said_before_the_next_report",
    ),
    "the next round of a drain waits for its time": Mutation(
        "scheduler/control.py",
        "            self._drained_at = -math.inf\n",
        "            pass\n",
        _CONTROL
        + "test_the_next_round_of_a_drain_is_due_when_the_moves_of_the_one_before_have_ended",
    ),
    "what is in host memory costs as much as what is not": Mutation(
        "policies/migration/place.py",
        "return self.load.copy_ms if adapter in self.load.on_host else self.load.load_ms",
        "return self.load.load_ms",
        _LOADS + "test_an_adapter_costs_a_fetch_a_copy_or_nothing",
    ),
    "keys and values travel for nothing": Mutation(
        "scheduler/loads.py",
        "return 1000 * SECONDS_A_BYTE * report.page_bytes / report.page_tokens",
        "return 0.0",
        _LOADS + "test_keys_and_values_cost_what_carrying_is_first_thought_to",
    ),
    "adapters take no memory": Mutation(
        "scheduler/loads.py",
        "return math.ceil(largest / report.page_bytes) * report.page_tokens if",
        "return 0 * largest if",
        _LOADS + "test_one_more_adapter_takes_the_pages_of_the_largest",
    ),
    "a stream stands still while its adapter is fetched": Mutation(
        "scheduler/control.py",
        "            or holds(there[move.target], move.adapter)\n",
        "            or True\n",
        _CONTROL + "test_a_move_waits_for_its_adapter_to_be_where_it_goes",
    ),
    "a move waits for its adapter for ever": Mutation(
        "scheduler/control.py",
        "or now - since[move.id] >= self._rules.fetch_seconds",
        "or False",
        _CONTROL + "test_a_move_does_not_wait_for_its_adapter_for_ever",
    ),
    "a stuck worker serves": Mutation(
        "scheduler/fleet.py",
        "            return WorkerState.STUCK\n",
        "            return WorkerState.SERVING\n",
        _STATES + "test_a_worker_whose_steps_stand_still_is_stuck_until_they_move",
    ),
    "an idle worker is stuck": Mutation(
        "scheduler/fleet.py",
        "or not (report.running and member.report.running)",
        "",
        _STATES + "test_a_worker_that_has_nothing_to_run_is_not_stuck",
    ),
    "adapters are forgotten when a report leaves them out": Mutation(
        "scheduler/fleet.py",
        "adapters = known if adapters is None else adapters",
        "adapters = report.adapters",
        _STATES + "test_adapters_are_as_it_said_last_and_sequences_of_the_moment",
    ),
    "orders are told again and again": Mutation(
        "scheduler/fleet.py",
        "told, self._member.orders = self._member.orders, []",
        "told = list(self._member.orders)",
        _STATES + "test_orders_are_told_once_and_to_those_that_are_there",
    ),
    "all of a worker's sequences leave at once": Mutation(
        "scheduler/control.py",
        "                room[move.source] -= 1\n                room[move.target] -= 1\n",
        "",
        _CONTROL + "test_a_worker_that_drains_is_emptied_in_rounds",
    ),
    "moves that are underway do not count": Mutation(
        "scheduler/control.py",
        "        for move in self.underway:\n",
        "        for move in ():\n",
        _CONTROL + "test_no_more_moves_are_underway_than_a_worker_may_take_part_in",
    ),
    "who leaves is moved again": Mutation(
        "scheduler/control.py",
        " if each.request not in leaving)",
        ")",
        _CONTROL + "test_who_leaves_is_not_planned_again_and_who_comes_takes_memory",
    ),
    "a lost move is never made again": Mutation(
        "scheduler/control.py",
        "if underway.move.source in live and underway.since > oldest",
        "if underway.move.source in live",
        _CONTROL + "test_a_move_of_which_nothing_is_heard_is_made_again_under_another_name",
    ),
    "a round waits for ever": Mutation(
        "scheduler/control.py",
        "return not awaited or now - self.since >= patience",
        "return not awaited",
        _CONTROL + "test_a_round_waits_for_all_that_were_asked_but_not_for_ever",
    ),
    "a move is told before it is in the log": Mutation(
        "scheduler/loop.py",
        "            ordered = await self._migrations.add(chosen)\n",
        "            ordered = chosen\n",
        _SERVICE + "test_a_worker_that_is_to_drain_is_emptied_and_the_log_says_how",
    ),
    "a dry run moves": Mutation(
        "scheduler/loop.py",
        "dry_run = asked is not None and asked.dry_run",
        "dry_run = False",
        _MOVES + "test_a_dry_run_says_what_would_be_moved_and_moves_nothing",
    ),
    "a scheduler that starts again has forgotten what was wished": Mutation(
        "scheduler/repository.py",
        '            await _put(session, WorkerWishRow, {"worker": worker}, row)\n',
        "",
        _SERVICE + "test_what_was_wished_holds_for_a_scheduler_that_starts_again",
    ),
    "late first tokens ask for no workers": Mutation(
        "policies/autoscaling.py",
        "        wanted = max(wanted, need.workers + 1)\n",
        "        pass\n",
        _SCALING + "test_as_many_as_the_signal_that_asks_for_most",
    ),
    "an adapter stays pinned to a worker that drains": Mutation(
        "scheduler/fleet.py",
        "        serving = self.open()\n        pins = tuple",
        "        serving = tuple(worker.identity for worker in self.live())\n        pins = tuple",
        _STATES + "test_a_pinned_adapter_goes_to_others_when_its_workers_do_not_serve",
    ),
    "a lease that ran out is not seen by who watches": Mutation(
        "scheduler/fleet.py",
        "        if silent:\n            self._open = None\n",
        "",
        _STATES + "test_who_is_silent_is_named_until_its_lease_ends",
    ),
    "a worker that goes on is not named again": Mutation(
        "scheduler/fleet.py",
        "            is_another |= was_stuck\n",
        "",
        _STATES + "test_a_worker_whose_steps_stand_still_is_stuck_until_they_move",
    ),
    "the planner is told of no debts": Mutation(
        "scheduler/loop.py",
        "loads, now, self._debts())",
        "loads, now, Debts())",
        _MOVES + "test_a_dry_run_says_what_would_be_moved_and_moves_nothing",
    ),
    "what a silent gateway said is owed still": Mutation(
        "scheduler/demand.py",
        'at either."""\n        self._forget()\n',
        'at either."""\n',
        _STATES + "test_what_is_owed_is_what_the_gateways_that_speak_say",
    ),
    "a gateway keeps to itself what it owes": Mutation(
        "gateway/lane.py",
        "debts=list(self._debts()),",
        "debts=(),",
        _DEMAND + "test_what_tenants_with_less_than_others_have_running_is_told_as_owed",
    ),
}
