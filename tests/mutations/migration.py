"""Of migration between workers, and of the simulator that shows what it gains."""

from tests.mutations.mutation import Mutation

_GREEDY = "tests/unit/policies/migration/test_greedy.py::"
_ROUNDS = "tests/unit/policies/migration/test_rounds.py::"
_CROWDING = "tests/unit/policies/migration/test_crowding.py::"
_ANY_FLEET = "tests/property/test_migration.py::"
_PROGRAM = "tests/property/test_program.py::"
_CLAIMS = "tests/property/test_migration_claims.py::"
_DISPATCH = "tests/unit/policies/dispatch/test_min_cost.py::"
_REPLICA = "tests/unit/simulator/early/test_replica.py::"
_ROOM = _ANY_FLEET + "test_a_round_loses_nobody_and_exceeds_nothing"

MIGRATION: dict[str, Mutation] = {
    "requests move to workers that take none": Mutation(
        "policies/migration/place.py",
        "return self.load.takes and (",
        "return (",
        _GREEDY + "test_nobody_goes_where_it_may_not",
    ),
    "who cannot run anywhere tells that nobody may wait": Mutation(
        "policies/migration/targets.py",
        "kind = source.load.base, sequence.waiting",
        "kind = source.load.base, True",
        _ANY_FLEET + "test_the_best_target_is_that_of_a_look_at_each",
    ),
    "requests move to another model": Mutation(
        "policies/migration/targets.py",
        "for worker in self._open[source.load.base])",
        "for ranking in self._open.values() for worker in ranking)",
        _GREEDY + "test_nobody_goes_where_it_may_not",
    ),
    "what those who run will need is promised twice": Mutation(
        "policies/migration/place.py",
        "room_tokens=load.free_tokens - left - waiting.tokens,",
        "room_tokens=load.free_tokens,",
        _GREEDY + "test_there_must_be_room_for_what_it_will_hold_in_the_end",
    ),
    "room is given to as many as like it": Mutation(
        "policies/migration/place.py",
        "        self.room_tokens -= self.needs(sequence)\n",
        "",
        _GREEDY + "test_room_is_given_once",
    ),
    "adapters need no slot": Mutation(
        "policies/migration/place.py",
        "(sequence.adapter not in self.held and self.slots < 1)",
        "False",
        _GREEDY + "test_an_adapter_needs_a_slot",
    ),
    "who runs is sent to wait": Mutation(
        "policies/migration/place.py",
        "may_wait = sequence.waiting and self.load.most_waiting > 0",
        "may_wait = self.load.most_waiting > 0",
        _ROOM,
    ),
    "workers with seats give requests away": Mutation(
        "policies/migration/place.py",
        "return self.count > self.side_by_side",
        "return True",
        _GREEDY + "test_nobody_moves_between_workers_with_seats",
    ),
    "who runs moves for any gain": Mutation(
        "policies/migration/greedy.py",
        "MIN_GAIN_OVER_COST = 2.0",
        "MIN_GAIN_OVER_COST = 0.0",
        _GREEDY + "test_who_runs_moves_if_it_gains_twice_what_the_cheaper_way_costs",
    ),
    "what was moved is priced as if computed anew": Mutation(
        "policies/migration/place.py",
        "again if move is None else min(again, move)",
        "again",
        _GREEDY + "test_who_runs_moves_if_it_gains_twice_what_the_cheaper_way_costs",
    ),
    "a draining worker keeps what was moved a short time ago": Mutation(
        "policies/migration/greedy.py",
        "            if len(board.moves) < most_moves:\n                _move_to_best",
        "            if len(board.moves) < most_moves and each.request not in board.frozen:\n"
        "                _move_to_best",
        _ROUNDS + "test_who_must_go_moves_again",
    ),
    "requests move to and fro": Mutation(
        "policies/migration/rounds.py",
        "        return frozenset(self._moved)\n",
        "        return frozenset()\n",
        _ANY_FLEET + "test_nobody_moves_to_and_fro",
    ),
    "a round has no end of moves": Mutation(
        "policies/migration/greedy.py",
        "if len(board.moves) >= most_moves or not _move_if_sooner",
        "if not _move_if_sooner",
        _GREEDY + "test_a_round_has_so_many_moves",
    ),
    "what is owed changes nothing": Mutation(
        "policies/migration/greedy.py",
        "key=lambda each: -self.of(each.request)",
        "key=lambda each: 0.0",
        _GREEDY + "test_whoever_is_owed_more_moves_first",
    ),
    "the program owes nothing": Mutation(
        "policies/migration/model.py",
        "LEAST_PRICE * (1 - OWED_OFF * debt / most)",
        "LEAST_PRICE",
        _ROUNDS + "test_the_program_moves_those_who_are_owed",
    ),
    "the program's answer counts however bad": Mutation(
        "policies/migration/program.py",
        "return solved if solved.makespan_ms < limit.milliseconds else None",
        "return solved",
        _ROUNDS + "test_an_answer_that_is_no_better_is_none",
    ),
    "the program brings adapters for nothing": Mutation(
        "policies/migration/model.py",
        "{column: place.load_ms(adapter) / 1000 for",
        "{column: 0.0 for",
        _PROGRAM + "test_the_program_is_within_a_twentieth_of_the_best",
    ),
    "the program moves requests without their adapters": Mutation(
        "policies/migration/model.py",
        "self._rows.append(({column: 1.0, y: -1.0}, -np.inf, 0.0))",
        "pass",
        _PROGRAM + "test_the_program_is_within_a_twentieth_of_the_best",
    ),
    "memory that runs out is no reason to move": Mutation(
        "policies/migration/greedy.py",
        "MEMORY_SHORT = 0.1",
        "MEMORY_SHORT = 0.0",
        _GREEDY + "test_who_would_not_fit_leaves_a_worker_whose_memory_ends",
    ),
    "a search for the least busy stops at the first": Mutation(
        "policies/migration/targets.py",
        "not best[0] and place.work_ms + least > best[1]",
        "not best[0]",
        _ROUNDS + "test_who_has_the_adapter_is_better_than_who_has_a_little_less_to_do",
    ),
    "who has more to do by now is searched where it was": Mutation(
        "policies/migration/board.py",
        "        self._targets.changed(target)\n",
        "",
        _ROUNDS + "test_who_has_more_to_do_by_now_comes_later",
    ),
    "the program is asked about any number of workers": Mutation(
        "policies/migration/program.py",
        "if sum(movable) * len(places) <= most:",
        "if True:",
        _ROUNDS + "test_of_a_large_fleet_the_program_sees_the_busiest_and_the_least_busy",
    ),
    "dispatch brings no adapter": Mutation(
        "policies/dispatch/min_cost.py",
        "        if others:\n",
        "        if False:\n",
        _CLAIMS + "test_dispatch_that_brings_adapters_is_faster_than_static_hosts",
    ),
    "an adapter's only host gives it up": Mutation(
        "policies/dispatch/min_cost.py",
        "len(_hosting(adapter, hosts)) > 1)",
        "True)",
        _DISPATCH + "test_an_adapter_without_another_host_or_in_use_stays",
    ),
    "lean replicas have a seat more": Mutation(
        "simulator/early/replica.py",
        "oldest = queued[: times.seats]",
        "oldest = queued[: times.seats + 1]",
        _REPLICA + "test_it_is_as_fast_as_the_production_engine",
    ),
    "what moves is not computed again": Mutation(
        "simulator/early/fleet.py",
        "        sequence.to_compute = sequence.tokens\n",
        "",
        "tests/unit/simulator/early/test_fleet.py::"
        "test_who_had_begun_has_its_keys_and_values_computed_again",
    ),
    "streams leave a crowded worker for any gain": Mutation(
        "policies/migration/greedy.py",
        "if gains > MIN_GAIN_OVER_COST * costs:",
        "if gains > 0:",
        _CROWDING + "test_it_must_gain_more_than_twice_what_it_costs",
    ),
    "streams leave for steps that are hardly shorter": Mutation(
        "policies/migration/crowding.py",
        "LEAST_SHORTER = 0.1",
        "LEAST_SHORTER = 0.0",
        _CROWDING + "test_it_must_gain_more_than_twice_what_it_costs",
    ),
    "a worker that came late gets nothing": Mutation(
        "policies/migration/greedy_round.py",
        "    spread(board, owed, most_moves, left)\n",
        "",
        _CROWDING + "test_a_worker_that_came_late_gets_about_half_of_the_streams",
    ),
    "streams that moved a short time ago leave again": Mutation(
        "policies/migration/greedy.py",
        "owed.groups(each for each in running if each.request not in board.frozen)",
        "owed.groups(running)",
        _CROWDING + "test_who_moved_a_short_time_ago_stays",
    ),
    "those who are there when streams come are not slowed": Mutation(
        "policies/migration/crowding.py",
        "        - _tokens_left(target) * target.load.step_times.sequence\n",
        "",
        _CROWDING + "test_those_who_are_there_already_are_slowed",
    ),
    "who has a line need not name its sequences": Mutation(
        "policies/migration/sources.py",
        "elif place.load.id in left:",
        "elif place.count > 100:",
        _ANY_FLEET + "test_who_need_not_name_its_sequences_changes_no_move",
    ),
    "adapters of sequences that were not named are not there": Mutation(
        "policies/migration/place.py",
        "held = {None, *load.in_use, ",
        "held = {None, ",
        _ANY_FLEET + "test_who_need_not_name_its_sequences_changes_no_move",
    ),
    "any that has a line is asked, however many": Mutation(
        "policies/migration/sources.py",
        "nlargest(most, of_base)",
        "of_base",
        _ANY_FLEET + "test_only_the_busiest_of_those_with_a_line_are_asked",
    ),
}
