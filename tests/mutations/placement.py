"""Of placement: what each part of a cost, each bound and each memory is there for."""

from tests.mutations.mutation import Mutation

_COST = "tests/unit/policies/test_placement_cost.py::"
_FLEETS = "tests/property/test_placement.py::"
_REPLICAS = "tests/property/test_replicas.py::"
_FORECAST = "tests/unit/policies/test_forecast.py::"
_LINES = "tests/property/test_lines.py::test_a_gateway_chooses_what_a_look_at_each_worker_does"
_SIMULATOR = "tests/unit/simulator/test_placement.py::"

_COSTS = {
    "a queue costs nothing": Mutation(
        "policies/placement/cost.py",
        "ahead += (view.waiting + 1) * life / max(view.most_sequences, view.running, 1)",
        "pass",
        _COST + "test_affinity_yields_to_a_queue",
    ),
    "a fetch is as quick as a copy": Mutation(
        "policies/placement/cost.py",
        "return _copy_ms(view, wish) if adapter in view.host else _fetch_ms(view, wish)",
        "return wish.copy_ms",
        _COST + "test_places_are_preferred_in_the_order_of_their_times",
    ),
    "a load and a queue are waited for in turn": Mutation(
        "policies/placement/cost.py",
        "max(0.0, ahead - load)",
        "ahead",
        _COST + "test_an_adapter_that_loads_while_others_wait_costs_no_wait_of_its_own",
    ),
    "an adapter displaces others at home": Mutation(
        "policies/placement/cost.py",
        "displaced = 0.0 if view.id in wish.homes else view.evicts_ms",
        "displaced = view.evicts_ms",
        _COST + "test_at_home_nobody_is_displaced",
    ),
    "nobody is displaced": Mutation(
        "policies/placement/cost.py",
        "displaced = 0.0 if view.id in wish.homes else view.evicts_ms",
        "displaced = 0.0",
        _COST + "test_a_free_place_is_better_than_one_that_displaces",
    ),
    "ranks are mixed": Mutation(
        "policies/placement/cost.py",
        "raises = GAP_SHARE * max(0, wish.rank - highest) if ranks else 0.0",
        "raises = 0.0",
        _COST + "test_a_high_rank_goes_where_ranks_are_high",
    ),
    "one more distinct adapter costs nothing": Mutation(
        "policies/placement/cost.py",
        "brings = 0.0 if shared else DISTINCT_SHARE * wish.rank",
        "brings = 0.0",
        _COST + "test_one_more_distinct_adapter_makes_steps_longer",
    ),
    "the last place is as good as any": Mutation(
        "policies/placement/cost.py",
        "turned_away = (1.0 + LOAD_SHADOW) * _fetch_ms(view, wish)",
        "turned_away = 0.0",
        _COST + "test_the_last_place_is_kept_for_who_has_its_adapter_there",
    ),
    "who is owed more is not preferred": Mutation(
        "policies/placement/cost.py",
        " / wish.urgency",
        "",
        _COST + "test_who_is_owed_more_gets_what_is_worse_for_others",
    ),
    "ties go to any": Mutation(
        "policies/placement/cost.py",
        "((total_ms(view, wish), -view.free_pages, view.id) for view in able)",
        "((total_ms(view, wish), id(view), view.id) for view in able)",
        _FLEETS + "test_the_order_of_the_fleet_does_not_matter",
    ),
    "who evicted an adapter is taken to have it": Mutation(
        "policies/placement/index.py",
        "            if view.place_of(adapter) is None:\n",
        "            if False:\n",
        _FLEETS + "test_the_index_chooses_what_a_look_at_everyone_does",
    ),
    "full workers are not looked at": Mutation(
        "policies/placement/index.py",
        "chain(self._open, self._full)",
        "self._open",
        _FLEETS + "test_the_index_chooses_what_a_look_at_everyone_does",
    ),
    "holders are not looked at": Mutation(
        "policies/placement/index.py",
        "near.update(self._least(holders, wish, able))",
        "pass",
        _FLEETS + "test_in_a_big_fleet_the_index_is_hardly_ever_far_off",
    ),
    "a rank that changed is kept": Mutation(
        "policies/placement/ranking.py",
        "        if before is not None:\n",
        "        if False:\n",
        _FLEETS + "test_a_ranking_is_a_sorted_list",
    ),
}

_HOMES = {
    "homes depend on how many workers there are": Mutation(
        "policies/placement/homes.py",
        "draws = _products(seed, others)",
        "draws = _products(seed + len(others), others)",
        _FLEETS + "test_who_goes_takes_only_its_own_homes_along",
    ),
    "a big worker is home to no more than a small one": Mutation(
        "policies/placement/homes.py",
        "-capacity / math.log",
        "-1.0 / math.log",
        _FLEETS + "test_homes_are_as_many_as_capacities_say",
    ),
    "who comes is home to nobody": Mutation(
        "policies/placement/homes.py",
        "= _seed(worker)\n        self._forget(capacity)",
        "= _seed(worker)\n        self._arrays.clear()",
        _FLEETS + "test_a_home_is_remembered_until_the_fleet_is_another",
    ),
    "every process has homes of its own": Mutation(
        "policies/placement/homes.py",
        "hashlib.blake2b(name.encode(), digest_size=8).digest()",
        'hash(name).to_bytes(8, "big", signed=True)',
        _FLEETS + "test_every_process_finds_the_same_homes",
    ),
    "chance is heat": Mutation(
        "policies/placement/heat.py",
        "return self.fast - deviations * math.sqrt(self.variance)",
        "return self.fast",
        _REPLICAS + "test_a_few_requests_by_chance_are_no_heat",
    ),
    "homes go as they came": Mutation(
        "policies/placement/replicas.py",
        "self._rules.share * (many.count - 1) * self._rules.margin",
        "self._rules.share * many.count",
        _REPLICAS + "test_a_steady_load_changes_the_count_once_at_most",
    ),
    "homes go at once": Mutation(
        "policies/placement/replicas.py",
        "if now - many.since >= self._rules.least_seconds and heat.most < fewer:",
        "if heat.most < fewer:",
        _REPLICAS + "test_a_load_that_flaps_changes_the_count_seldom",
    ),
    "an adapter has homes without end": Mutation(
        "policies/placement/replicas.py",
        "min(self._rules.most, needed)",
        "needed",
        _REPLICAS + "test_it_never_has_more_than_the_most",
    ),
    "a pin is no floor": Mutation(
        "policies/placement/replicas.py",
        "max(1, self._pins.get(adapter, 0), many.count if many else 1)",
        "max(1, many.count if many else 1)",
        _REPLICAS + "test_a_pin_is_a_floor",
    ),
    "the idle are remembered": Mutation(
        "policies/placement/replicas.py",
        "            del self._heats[adapter]\n",
        "            return\n",
        _REPLICAS + "test_the_idle_are_forgotten",
    ),
}

_AHEAD = {
    "what comes every day is a surprise": Mutation(
        "policies/placement/forecast.py",
        "1 if seasonal < NEARER * ema else 0",
        "0",
        _FORECAST + "test_what_comes_every_period_is_expected_before_it_comes",
    ),
    "a season is heeded though there is none": Mutation(
        "policies/placement/forecast.py",
        "1 if seasonal < NEARER * ema else 0",
        "1",
        _FORECAST + "test_a_season_that_was_none_is_not_heeded",
    ),
    "demand of long ago is remembered": Mutation(
        "policies/placement/forecast.py",
        "                self._courses.pop(adapter, None)\n                continue\n",
        "                pass\n",
        _FORECAST + "test_the_idle_are_forgotten",
    ),
    "what is somewhere is brought home": Mutation(
        "policies/placement/preload.py",
        "free[: max(0, len(at_home) - len(there))]",
        "free",
        _FORECAST + "test_who_is_somewhere_is_not_brought_again",
    ),
    "a worker is given all at once": Mutation(
        "policies/placement/preload.py",
        " if ordered.get(worker, 0) < most_each]",
        "]",
        _FORECAST + "test_no_worker_gets_many_at_once",
    ),
    "what ends as another comes is lost": Mutation(
        "simulator/placement/world.py",
        "self._ended(worker.give(job, now), now)",
        "worker.give(job, now)",
        _SIMULATOR + "test_all_that_came_ends_or_is_there",
    ),
    "loads cost nothing": Mutation(
        "policies/placement/cost.py",
        "    load = load_ms(view, wish)\n    return load +",
        "    load = 0.0\n    return load +",
        _SIMULATOR + "test_affinity_saves_loads_against_random",
    ),
    "load does not matter": Mutation(
        "policies/placement/cost.py",
        "    return load + _queue_ms(view, wish, load) + _slowdown_ms(view, wish, load)\n",
        "    return load\n",
        _SIMULATOR + "test_it_is_as_quick_as_the_least_loaded",
    ),
}

_GATEWAY = {
    "a gateway places as if nobody was owed anything": Mutation(
        "gateway/fair_queue.py",
        "lines.place(ticket.job, ticket.urgency(lines.pool_tokens))\n",
        "lines.place(ticket.job)\n",
        "tests/unit/gateway/test_fair_queue.py::"
        "test_who_is_owed_more_goes_where_it_is_quicker_though_others_pay",
    ),
    "a gateway does not hear that a worker has more room": Mutation(
        "gateway/worker_room.py",
        "self._resident = self._resident if resident is None else resident\n"
        "        self.look_again()\n",
        "self._resident = self._resident if resident is None else resident\n"
        "        self._view = None\n",
        _LINES,
    ),
    "a doubtful worker that breaks is a line still": Mutation(
        "gateway/worker_room.py",
        "        self.has_ended, self._takes = True, False\n        self.look_again()\n",
        "        self.has_ended = True\n        self.takes(requests=False)\n",
        "tests/property/test_lines.py::test_one_that_was_doubted_and_breaks_is_gone",
    ),
    "full workers have room": Mutation(
        "gateway/lines.py",
        "        if view.is_full:\n",
        "        if False:\n",
        _LINES,
    ),
    "few workers with the tokens are few that are looked at": Mutation(
        "gateway/lines.py",
        "among = None if len(roomy) > FEW else frozenset(roomy)",
        "among = frozenset(roomy[:1])",
        _LINES,
    ),
    "what outputs take is what they may take": Mutation(
        "gateway/lines.py",
        "self._shares.key(worker) for worker in self._shares), None) or 0.0",
        "1.0 for worker in self._shares), None) or 0.0",
        _LINES,
    ),
    "a line that changed is not looked at again": Mutation(
        "gateway/workers.py",
        "        self._refresh()\n        return self._serving_of(base)\n",
        "        return self._serving_of(base)\n",
        "tests/contract/test_worker_room.py::"
        "test_what_was_promised_counts_until_the_worker_counts_it",
    ),
    "a gateway forgets what it gave a worker when it weighs ranks": Mutation(
        "gateway/worker_room.py",
        "                ranks=ranks,\n",
        "",
        "tests/contract/test_worker_room.py::"
        "test_adapters_that_run_there_are_known_with_their_ranks",
    ),
    "a view outlives what was promised": Mutation(
        "gateway/worker_room.py",
        "            self._jobs[job.request_id] = job\n        self.look_again()\n",
        "            self._jobs[job.request_id] = job\n",
        "tests/contract/test_worker_room.py::"
        "test_adapters_that_run_there_are_known_with_their_ranks",
    ),
}


PLACEMENT = _COSTS | _HOMES | _AHEAD | _GATEWAY
