"""Of tiers of service."""

from tests.mutations.mutation import Mutation

_TIERS = "tests/unit/policies/test_tiers.py::"
_QUEUED_TIERS = "tests/unit/gateway/test_tiers.py::"
_FIRST_TOKENS = "tests/unit/gateway/test_first_tokens.py::"
_GATEWAY = "tests/unit/gateway/test_gateway.py::"
_SHARES = "tests/contract/test_shares.py::"

TIERS: dict[str, Mutation] = {
    "tiers weigh the same": Mutation(
        "policies/fairness/tiers.py",
        "amount / self._weights[request.tier]",
        "amount",
        _TIERS + "test_where_all_ask_for_more_than_there_is_weights_are_their_parts",
    ),
    "a lower tier starves": Mutation(
        "policies/fairness/tiers.py",
        "key=lambda tier: (self._counters.of(tier.value), _RANKS[tier])",
        "key=lambda tier: _RANKS[tier]",
        _TIERS + "test_where_all_ask_for_more_than_there_is_weights_are_their_parts",
    ),
    "a tier in which nobody may start stops the others": Mutation(
        "policies/fairness/tiers.py",
        "            if found:\n",
        "            if True:\n",
        _TIERS + "test_one_in_which_nobody_may_start_stops_no_other",
    ),
    "a request is of the default tier whatever it asked for": Mutation(
        "gateway/lane.py",
        "        tier=completion.tier,\n",
        "",
        _QUEUED_TIERS + "test_a_higher_tier_is_next_and_a_lower_one_has_its_part",
    ),
    "who has most has to go, whatever it weighs": Mutation(
        "policies/fairness/levels.py",
        "key=lambda each: below[each] / each[1]",
        "key=lambda each: below[each] * each[1]",
        "tests/unit/policies/test_levels.py::"
        "test_who_has_most_for_its_weight_is_looked_for_from_the_highest_level_down",
    ),
    "accounts of tiers are mixed": Mutation(
        "scheduler/accounts.py",
        "of = base, account",
        'of = base, ""',
        "tests/unit/test_accounts.py::test_what_is_charged_in_one_account_is_not_in_another",
    ),
    "a tier is had by whoever asks for it": Mutation(
        "gateway/tiers.py",
        "if asked not in allowed:",
        "if False:",
        f"{_GATEWAY}test_a_tier_above_the_tenants_highest_is_refused",
    ),
    "who asks for no tier has a higher one than it may": Mutation(
        "gateway/tiers.py",
        "return Tier.DEFAULT if Tier.DEFAULT in allowed else highest",
        "return Tier.DEFAULT",
        f"{_GATEWAY}test_a_request_has_the_tier_that_it_asks_for",
    ),
    "a key's requests have tiers that its tenant may not": Mutation(
        "gateway/repository.py",
        "        organisation_weight=row.organisation_weight or 1.0,\n"
        "        highest_tier=_tier(row.highest_tier),\n",
        "        organisation_weight=row.organisation_weight or 1.0,\n",
        f"{_SHARES}test_a_tenants_highest_tier_holds_from_the_next_request_on[sqlite]",
    ),
    "a tier of a later release breaks its tenant's requests": Mutation(
        "gateway/repository.py",
        "next((tier for tier in Tier if tier.value == word), Tier.DEFAULT)",
        "Tier(word)",
        f"{_SHARES}test_a_tier_of_a_later_release_is_the_default_here[sqlite]",
    ),
    "every request is of the default tier": Mutation(
        "gateway/records.py",
        "tier=completion.tier.value,",
        'tier="default",',
        "tests/contract/test_ledger.py::test_a_row_says_all_there_is_to_say[sqlite]",
    ),
    "sums by tier are of all tiers together": Mutation(
        "gateway/repositories/usage.py",
        'LedgerRow.tier.label("tier")',
        'LedgerRow.model.label("tier")',
        "tests/contract/test_usage.py::test_sums_by_anything_are_those_of_the_rows[sqlite]",
    ),
    "first tokens of all tiers are together": Mutation(
        "gateway/first_tokens.py",
        "completion.tier.value",
        '"default"',
        _FIRST_TOKENS + "test_each_is_counted_in_its_tier",
    ),
    "a tier promises nothing": Mutation(
        "gateway/gateway.py",
        "usual = self._first_tokens_ms.get(tier)",
        "usual = None",
        _FIRST_TOKENS + "test_a_tier_promises_what_requests_do_not_say",
    ),
}
