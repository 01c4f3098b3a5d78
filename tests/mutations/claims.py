"""Of what was measured of fair policies: the V and B numbers of the test plan, where they have no
mutation beside the line that they are about."""

from tests.mutations.mutation import Mutation

_CLAIMS = "tests/property/test_vtc_claims.py::"
_ADAPTERS = "tests/property/test_adapter_claims.py::"
_NOTHING_CHARGED = ("policies/fairness/vtc.py", "level.charge(key, due / weight)", "pass")
_ONE_AT_A_TIME = (
    "policies/fairness/vtc.py",
    "        if not self._paths:\n            return\n",
    "        if not self._paths or self._running:\n            return\n",
)
_NO_BAND_IS_KEPT = (
    "policies/fairness/counters.py",
    "return self._counters[key] <= self._floor() + band",
    "return True",
)

CLAIMS = {
    "V2: nothing is charged": Mutation(
        *_NOTHING_CHARGED, _CLAIMS + "test_two_that_ask_for_too_much_get_the_same"
    ),
    "V3: one runs at a time": Mutation(
        *_ONE_AT_A_TIME, _CLAIMS + "test_fairness_costs_no_throughput"
    ),
    "V4: nothing is charged": Mutation(
        *_NOTHING_CHARGED,
        _CLAIMS + "test_who_asks_for_little_does_not_wait_for_who_asks_for_much[proportional]",
    ),
    "V5: who had least is raised when it comes back": Mutation(
        "policies/fairness/policies.py",
        "replace(knobs.rules, lifts=False)",
        "replace(knobs.rules, lifts=True)",
        _CLAIMS + "test_least_counter_first_is_unfair_when_demand_shifts",
    ),
    "V8: one runs at a time": Mutation(
        *_ONE_AT_A_TIME, _CLAIMS + "test_no_policy_that_does_not_preempt_can_be_much_fairer"
    ),
    "V9: nothing is charged": Mutation(
        *_NOTHING_CHARGED,
        _CLAIMS + "test_who_asks_for_less_than_its_part_is_served_in_full_and_soon",
    ),
    "V10: output is not charged": Mutation(
        "policies/fairness/vtc.py",
        "if running.produced > running.predicted:",
        "if False:",
        _CLAIMS + "test_short_and_long_requests_get_the_same",
    ),
    "V12: what is foreseen is not charged": Mutation(
        "policies/fairness/vtc.py",
        "running.predicted = self._rules.lengths.predict(running.request)",
        "pass",
        _CLAIMS + "test_who_knows_the_lengths_is_fairer",
    ),
    "V14: a rate limit refuses nothing": Mutation(
        "policies/fairness/baselines.py",
        "        if not self._windows.has_room(request.tenant, now):\n            raise",
        "        if False:\n            raise",
        _CLAIMS + "test_a_rate_limit_wastes_what_it_refuses",
    ),
    "V15: nothing is charged": Mutation(
        *_NOTHING_CHARGED,
        _CLAIMS + "test_the_bound_holds_whatever_the_memory_and_the_load[3.0-2000]",
    ),
    "V16: nothing is charged": Mutation(
        *_NOTHING_CHARGED, _CLAIMS + "test_many_tenants_of_a_real_shape[0]"
    ),
    "B1: what is resident does not come first": Mutation(
        "policies/fairness/vtc.py",
        "self._heads.lowest(resident)",
        "self._heads.lowest(())",
        _ADAPTERS + "test_a_band_is_as_fast_as_affinity_and_twice_as_fast_as_none",
    ),
    "B1: a band has no end": Mutation(
        *_NO_BAND_IS_KEPT, _ADAPTERS + "test_a_band_widens_the_gap_by_no_more_than_itself[0]"
    ),
    "B2: a band has no end": Mutation(
        *_NO_BAND_IS_KEPT, _ADAPTERS + "test_the_bound_holds_however_unequal_the_demand[1000.0]"
    ),
    "B4: what others charged is not learnt": Mutation(
        "policies/fairness/clearing.py",
        "        if is_known:\n            self._counters.learn",
        "        if False:\n            self._counters.learn",
        "tests/property/test_clearing.py::test_a_gateway_that_starts_anew_starves_nobody",
    ),
}
