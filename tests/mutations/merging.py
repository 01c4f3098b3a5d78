"""Of adapters in the weights: that nothing is changed by it, and nobody waits for it."""

from tests.mutations.mutation import Mutation

_WORKER = "tests/unit/gpu_worker/test_merging.py::"
_CLAIMS = "tests/property/test_merging_claims.py::"

MERGING = {
    "an adapter is folded into the base itself": Mutation(
        "gpu_worker/model/merging.py",
        "self._twins = [device.twin(linear) for linear in self._own]",
        "self._twins = self._own",
        _WORKER + "test_no_switch_changes_a_byte_of_the_base",
    ),
    "an adapter in the weights is left to others": Mutation(
        "gpu_worker/model/merging.py",
        "both = [[*a, *b] for a, b in zip(own, self._negated, strict=True)]",
        "both = own",
        _WORKER + "test_merged_mixed_and_unmerged_give_the_same_answers",
    ),
    "an adapter in the weights is left to the base": Mutation(
        "gpu_worker/model/merging.py",
        "{None: device.bank(folded.negated, memory)}",
        "{None: None}  # type: ignore[dict-item]",
        _WORKER + "test_merged_mixed_and_unmerged_give_the_same_answers",
    ),
    "weights are used before all of an adapter is in them": Mutation(
        "gpu_worker/engine/merging.py",
        "if self._folder.fold():",
        "if self._folder.fold() or True:",
        _WORKER + "test_merged_mixed_and_unmerged_give_the_same_answers",
    ),
    "an adapter is folded in one step": Mutation(
        "gpu_worker/engine/merging.py",
        "range(-(-self._folder.folds // FOLD_STEPS))",
        "range(self._folder.folds)",
        _WORKER + "test_streams_go_on_in_every_step_of_a_switch",
    ),
    "pages of a merged adapter are kept": Mutation(
        "gpu_worker/engine/merging.py",
        "self._pool.pages.release(pages)",
        "pages.clear()",
        _WORKER + "test_who_pauses_goes_on_with_what_it_had",
    ),
    "a merged adapter keeps its pages from who needs them": Mutation(
        "gpu_worker/engine/merging.py",
        "if not plan.slices:\n            self.make_do(batcher)",
        "if not plan.slices:\n            pass",
        _WORKER + "test_an_adapter_in_the_weights_gives_way_to_who_needs_its_pages",
    ),
    "the band is not kept": Mutation(
        "policies/merging/banded.py",
        "if counter < most - (band / 2 if client in self._behind else band)",
        "if counter < most - 1e9",
        _CLAIMS + "test_nobody_waits_longer_than_the_band",
    ),
    "nothing is merged beside the base model": Mutation(
        "policies/merging/fixed.py",
        "        if merged is None or all(request.adapter != merged for request in first):\n"
        "            self._merged = largest(first)",
        "        if all(request.adapter != merged for request in first):\n"
        "            self._merged = largest(first)",
        "tests/unit/policies/test_merging.py::"
        "test_mixed_runs_who_came_first_and_stays_while_anybody_asks_for_it",
    ),
    "a policy told to be patient is not": Mutation(
        "policies/merging/banded.py",
        "        price *= self._rules.patience\n",
        "",
        "tests/unit/policies/test_merging.py::"
        "test_a_switch_waits_until_as_much_was_lost_as_it_takes[3.0]",
    ),
    "merging pays from any ratio on": Mutation(
        "policies/merging/banded.py",
        "return len(batch.requests) / self.costs.milliseconds(batch)",
        "return len(batch.requests) / (1 + len(self._behind))",
        _CLAIMS + "test_it_merges_from_the_measured_break_even_on",
    ),
    "credit is made of nothing": Mutation(
        "policies/merging/credit.py",
        "self._credit[payer] -= price",
        "pass",
        _CLAIMS + "test_credit_is_only_ever_passed_on",
    ),
    "credit never lets who starves run": Mutation(
        "policies/merging/credit.py",
        "enough = self._scale * len(self._credit)",
        "enough = 1e9",
        _CLAIMS + "test_credit_bounds_for_how_long_who_came_first_is_passed_over",
    ),
}
