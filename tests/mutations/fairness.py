"""Of the policies: what each rule of VTC is there for."""

from tests.mutations.mutation import Mutation

_VTC = "tests/unit/policies/test_vtc.py::"
_PROPERTY = "tests/property/test_fairness.py::"
_MEASURES = "tests/unit/policies/test_measures.py::"
_WAITS = "tests/unit/gpu_worker/test_adapter_waits.py::"
_BASELINES = "tests/property/test_baselines.py::"
_REFUSALS = "tests/unit/gateway/test_refusals.py::"
_SHARES = "tests/unit/gateway/test_shares.py::"

FAIRNESS = {
    "who was alone is not lifted": Mutation(
        "policies/fairness/counters.py",
        "return self._counters.get(self._last, 0.0) if top is None else top[0]",
        "return 0.0 if top is None else top[0]",
        _VTC + "test_who_was_alone_does_not_stand_behind_a_burst",
    ),
    "who joins is not lifted": Mutation(
        "policies/fairness/counters.py",
        "return self._counters.get(self._last, 0.0) if top is None else top[0]",
        "return self._counters.get(self._last, 0.0) if top is None else 0.0",
        _VTC + "test_who_joins_later_has_no_credit_for_its_absence[vtc-0.55]",
    ),
    "the bound holds for no reason": Mutation(
        "policies/fairness/counters.py",
        "self._become(key, self._counters[key] + amount)",
        "self._become(key, self._counters[key] - amount)",
        _PROPERTY + "test_counters_of_those_who_wait_stay_within_the_bound",
    ),
    "who waits is overtaken beyond the band": Mutation(
        "policies/fairness/counters.py",
        "return self._counters[key] <= self._floor() + band",
        "return True",
        _VTC + "test_a_resident_adapter_gains_the_band_and_no_more",
    ),
    "everybody idle is forgotten": Mutation(
        "policies/fairness/counters.py",
        "while self._idle and self._idle[0][0] <= lowest:",
        "while self._idle:",
        _VTC + "test_who_had_more_than_those_who_wait_is_not_forgotten",
    ),
    "nobody is forgotten": Mutation(
        "policies/fairness/counters.py",
        "while self._idle and self._idle[0][0] <= lowest:",
        "while False:",
        _VTC + "test_who_is_idle_and_had_no_more_than_those_who_wait_is_forgotten",
    ),
    "tokens are charged again and again": Mutation(
        "policies/fairness/vtc.py",
        "        running.charged += due\n",
        "",
        _VTC + "test_charges_come_to_the_cost_of_what_was_produced[8-False-WeightedTokens]",
    ),
    "what was predicted is kept": Mutation(
        "policies/fairness/vtc.py",
        "if running.predicted > running.produced:",
        "if False:",
        _VTC + "test_charges_come_to_the_cost_of_what_was_produced[3-True-WeightedTokens]",
    ),
    "weights do not count": Mutation(
        "policies/fairness/vtc.py",
        "level.charge(key, due / weight)",
        "level.charge(key, due)",
        _VTC + "test_weights_are_the_shares",
    ),
    "adapters are counted before those who own them": Mutation(
        "policies/fairness/levels.py",
        "return (organisation, share.top_weight), (request.tenant, share.weight), (adapter, 1.0)",
        "return (adapter, 1.0), (organisation, share.top_weight), (request.tenant, share.weight)",
        _VTC + "test_splitting_into_adapters_buys_nothing[4]",
    ),
    "an organisation weighs as much as its tenant": Mutation(
        "policies/fairness/levels.py",
        "return (organisation, share.top_weight)",
        "return (organisation, share.weight)",
        _VTC + "test_weights_are_shares_on_every_level",
    ),
    "an organisation gets more for having five tenants": Mutation(
        "policies/fairness/levels.py",
        'organisation = share.organisation or f"tenant {request.tenant}"',
        'organisation = f"tenant {request.tenant}"',
        _SHARES + "test_an_organisation_gets_no_more_for_having_five_tenants",
    ),
    "a request forgets its tenant's share": Mutation(
        "gateway/lane.py",
        "        share=completion.share,\n",
        "",
        _SHARES + "test_a_changed_weight_counts_from_the_next_request_on",
    ),
    "what is reported is not what is compared": Mutation(
        "gateway/fairness.py",
        "compared = Measured(served, Measures(), self._cost, inner.levels)",
        "pass",
        _SHARES + "test_what_is_compared_is_what_is_reported",
    ),
    "who is refused too late is not counted": Mutation(
        "gateway/refusals.py",
        "            self.note(tenant)\n",
        "            pass\n",
        _REFUSALS + "test_they_are_counted_by_tenant_wherever_it_was_known",
    ),
    "ones burst gets anothers requests refused": Mutation(
        "policies/fairness/levels.py",
        "return min(self._below.get((), NOBODY).total(), waiting / part)",
        "return self._below.get((), NOBODY).total()",
        _REFUSALS + "test_ones_burst_gets_nobody_elses_requests_refused",
    ),
    "refusals of all who ever came are kept": Mutation(
        "gateway/refusals.py",
        "if len(self._counts) > self._known:",
        "if False:",
        _REFUSALS + "test_the_most_refused_are_named_and_all_are_counted",
    ),
    "who waits in vain pays": Mutation(
        "policies/fairness/vtc.py",
        "        if request in self._paths:\n            self._leave(request)\n",
        "        if request in self._paths:\n            self.admit(request, 0.0)\n",
        _REFUSALS + "test_who_was_refused_paid_nothing_and_is_next_as_if_it_had_not_asked",
    ),
    "all are expected to come equally soon": Mutation(
        "policies/fairness/levels.py",
        "part *= weight / (weight + others)",
        "part /= max(1, len(below))",
        _SHARES + "test_who_weighs_more_can_expect_to_come_sooner",
    ),
    "what a step takes by itself is paid by nobody": Mutation(
        "policies/fairness/profile.py",
        "sequence + step * steps / max(1.0, sequences)",
        "sequence",
        "tests/unit/policies/test_profile.py::test_all_requests_together_pay_for_all_of_the_time",
    ),
    "gateways do not hear of each other": Mutation(
        "policies/fairness/clearing.py",
        "            self._counters.learn(answer.counters, answer.floor)\n",
        "            pass\n",
        "tests/property/test_clearing.py::"
        "test_service_differs_by_no_more_than_what_was_not_heard_of[5]",
    ),
    "who waits elsewhere holds nobody's floor down": Mutation(
        "policies/fairness/counters.py",
        "if top is None else min(top[0], self._floor_elsewhere)",
        "if top is None else top[0]",
        "tests/property/test_clearing.py::"
        "test_a_tenant_is_not_lifted_above_those_who_wait_elsewhere",
    ),
    "a statement counts as often as it comes": Mutation(
        "policies/fairness/clearing.py",
        "if before is not None and statement.number <= before.number:",
        "if False:",
        "tests/property/test_clearing.py::test_statements_and_answers_may_be_lost_late_and_doubled",
    ),
    "a new house is told only what is new": Mutation(
        "policies/fairness/clearing.py",
        'self._house = answer.house if is_known else ""',
        "self._house = answer.house",
        "tests/property/test_clearing.py::test_a_house_that_starts_anew_is_told_everything",
    ),
    "a tenant is known after its minute": Mutation(
        "policies/fairness/baselines.py",
        "                del self._counts[tenant]\n",
        "                pass\n",
        _BASELINES + "test_a_rate_limit_is_that_of_a_list_of_everything",
    ),
    "who has paid is known for ever": Mutation(
        "policies/fairness/baselines.py",
        "if not queue and self._deficits[tenant] >= 0:",
        "if False:",
        _BASELINES + "test_who_owes_lets_as_many_turns_pass_as_it_has_to",
    ),
    "who is gone owes nothing": Mutation(
        "policies/fairness/baselines.py",
        "if self._deficits[tenant] < 0 and self._tenants:",
        "if False:",
        _BASELINES + "test_who_owes_lets_as_many_turns_pass_as_it_has_to",
    ),
    "a band is as wide however cheap loads are": Mutation(
        "policies/fairness/band.py",
        "wanted = worth * min(1.0, self._lost / self._knobs.dear)",
        "wanted = worth",
        "tests/property/test_adapter_claims.py::"
        "test_a_band_that_adapts_is_none_where_loads_are_cheap[0.0]",
    ),
    "who had no room blames its adapter": Mutation(
        "gpu_worker/engine/batcher.py",
        "if has_room and sequence.stalled_at is None:",
        "if sequence.stalled_at is None:",
        _WAITS + "test_who_waits_for_memory_does_not_wait_for_its_adapter",
    ),
    "a band does not hear what workers say of loads": Mutation(
        "gateway/gateway.py",
        "self._queue.awaited(ticket, piece.adapter_wait)",
        "pass",
        "tests/unit/gateway/test_adaptive_band.py::test_a_band_hears_what_workers_say_of_loads",
    ),
    "a band is wider than it promised": Mutation(
        "policies/fairness/band.py",
        "return min(self._knobs.most, max(self._knobs.least, wanted))",
        "return max(self._knobs.least, wanted)",
        "tests/unit/policies/test_band.py::"
        "test_a_policy_promises_the_most_however_dear_loads_are[300.0]",
    ),
    "what one had before both waited is a gap": Mutation(
        "policies/fairness/measures.py",
        "_Moved(self._ahead(pair), self._ahead(pair))",
        "_Moved(0.0, 0.0)",
        _MEASURES + "test_the_gap_is_that_of_every_stretch_of_every_pair",
    ),
    "every tenant has a label": Mutation(
        "policies/fairness/measures.py",
        "nlargest(self._knobs.named,",
        "nlargest(self._knobs.known,",
        _MEASURES + "test_the_most_served_are_named_and_the_rest_summed",
    ),
    "the service of all who ever came is kept": Mutation(
        "policies/fairness/measures.py",
        "if len(self._service) > self._knobs.known:",
        "if False:",
        _MEASURES + "test_state_is_bounded_however_many_come",
    ),
    "a promise does not know its band": Mutation(
        "policies/fairness/vtc.py",
        "band=band.most if isinstance(band, AdaptiveBand) else band\n",
        "band=0.0\n",
        _PROPERTY + "test_promises_are_the_papers_and_the_plans",
    ),
    "a promise does not know its weights": Mutation(
        "policies/fairness/bounds.py",
        "most / room.least_weight + band",
        "most + band",
        _PROPERTY + "test_counters_stay_within_what_the_rules_promise",
    ),
    "tenants pay for being moved": Mutation(
        "simulator/fleet.py",
        "                self._recomputed[move.tenant] += len(again.prompt)\n",
        "                self._recomputed[move.tenant] += len(again.prompt)\n"
        "                self._policy.produced(request, len(again.prompt))\n",
        "tests/unit/simulator/test_fleet.py::test_moving_buys_no_debt_and_no_credit[0.0]",
    ),
    "steps take another time than the device's": Mutation(
        "simulator/step_time.py",
        "decode_milliseconds: float = 30.0",
        "decode_milliseconds: float = 40.0",
        "tests/property/test_published.py::"
        "test_ours_is_near_what_was_published[overload fcfs tokens a second 0.0]",
    ),
    "a request that is given up keeps what was predicted of it": Mutation(
        "policies/fairness/vtc.py",
        "if running.predicted > running.produced:",
        "if running.predicted > running.produced > 0:",
        "tests/property/test_charges.py::"
        "test_a_request_is_charged_what_it_came_to[marginal milliseconds]",
    ),
    "a promise takes tokens for as cheap as the last one": Mutation(
        "policies/fairness/cost.py",
        "price = max(first, last)",
        "price = last",
        "tests/unit/policies/test_baselines.py::"
        "test_the_bound_holds_for_dear_prompts_and_for_outputs_that_become_cheaper",
    ),
    "what is charged is forgotten in the mean": Mutation(
        "policies/fairness/counters.py",
        "            self._total += counter - before\n",
        "            pass\n",
        "tests/property/test_counters.py::test_what_is_owed_is_what_is_missing_to_the_mean",
    ),
    "who does not wait is owed what it did not ask for": Mutation(
        "policies/fairness/counters.py",
        "max(self._counters[key], self._floor()) if self._lifts else",
        "",
        "tests/property/test_counters.py::test_what_is_owed_is_what_is_missing_to_the_mean",
    ),
}
