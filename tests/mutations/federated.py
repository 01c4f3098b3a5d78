"""Of federated training: what travels, what is averaged, what is refused."""

from tests.mutations.mutation import Mutation

_HERE = "tests/unit/trainer/federated/"
_SUMS, _STAGES = _HERE + "test_aggregation.py::", _HERE + "test_stages.py::"
_LOCAL, _CHECKS = _HERE + "test_local.py::", _HERE + "test_checking.py::"
_LIARS = _HERE + "test_robustness.py::"
_BAD = _CHECKS + "test_a_bad_update_is_refused_with_why_and_the_rest_is_taken"

FEDERATED: dict[str, Mutation] = {
    "all clients weigh the same": Mutation(
        "trainer/federated/averaging.py",
        "return [update.examples / total for update in updates]",
        "return [1 / len(updates) for update in updates]",
        _SUMS + "test_fedavg_is_the_plain_mean",
    ),
    "who has nothing is averaged": Mutation(
        "trainer/federated/averaging.py",
        "if update.examples <= 0:",
        "if update.examples < 0:",
        _SUMS + "test_who_has_no_examples_is_refused",
    ),
    "updates are summed as they come": Mutation(
        "trainer/federated/averaging.py",
        "sorted(updates, key=lambda each: (each.client, each.attempt))",
        "updates",
        _SUMS + "test_order_and_repetition_change_nothing",
    ),
    "a median is a mean": Mutation(
        "trainer/federated/averaging.py",
        "name: np.median(",
        "name: np.mean(",
        _LIARS + "test_one_liar_moves_a_robust_average_little[4-median]",
    ),
    "nothing is trimmed": Mutation(
        "trainer/federated/averaging.py",
        "off = min(math.ceil(share * len(there) - 1e-9), (len(there) - 1) // 2)",
        "off = 0",
        _LIARS + "test_one_liar_moves_a_robust_average_little[2-trimmed]",
    ),
    "the core is not turned back": Mutation(
        "trainer/federated/factoring.py",
        "return _of(qb @ u, s, vt @ qa.T, rank, scaling)",
        "return _of(qb, s, qa.T, rank, scaling)",
        _SUMS + "test_flexlora_of_full_rank_is_exact_and_fedavg_is_not",
    ),
    "factors forget the scaling": Mutation(
        "trainer/federated/factoring.py",
        "root = np.sqrt(s[:rank] / scaling)",
        "root = np.sqrt(s[:rank])",
        _STAGES + "test_factors_are_the_best_of_their_rank",
    ),
    "a client of low rank gets the last of the factors": Mutation(
        "trainer/federated/lora.py",
        "return array[:rank]",
        "return array[-rank:]",
        _SUMS + "test_each_rank_gets_the_best_of_it",
    ),
    "what was frozen before is forgotten": Mutation(
        "trainer/federated/exact.py",
        "return [] if a is None or b is None else [(1.0, Factors(a, b, 1.0))]",
        "return []",
        _SUMS + "test_stacks_and_residuals_add_exactly_the_mean[fedex-config2]",
    ),
    "the residual is the whole": Mutation(
        "trainer/federated/exact.py",
        ", (-1.0, averaged)]",
        "]",
        _SUMS + "test_stacks_and_residuals_add_exactly_the_mean[fedex-config2]",
    ),
    "all layers have one mask": Mutation(
        "trainer/federated/masks.py",
        'f"{seed} {layer.name}"',
        'f"{seed}"',
        _STAGES + "test_a_mask_is_of_its_density_and_of_its_seed_and_layer",
    ),
    "a switch is published at its own rank": Mutation(
        "trainer/federated/staged.py",
        "name: each if len(each.a) <= rank else factored(each.delta, rank, each.scaling)",
        "name: each",
        _STAGES + "test_a_switch_of_a_higher_rank_is_published_at_the_serving_rank",
    ),
    "a state forgets its round": Mutation(
        "trainer/federated/state.py",
        'arrays, about["round"], about["facts"]',
        'arrays, 0, about["facts"]',
        _STAGES + "test_a_state_goes_on_from_a_file_to_the_same_bytes[slora]",
    ),
    "A travels though it is frozen": Mutation(
        "trainer/federated/one_factor.py",
        'freeze_a=True), _without(".A", state.arrays)',
        "freeze_a=True), state.arrays",
        _STAGES + "test_what_travels_is_what_the_formulas_say",
    ),
    "every round has the same clients": Mutation(
        "trainer/federated/sampling.py",
        'f"{seed} {round}"',
        'f"{seed}"',
        _STAGES + "test_who_takes_part_depends_on_round_and_seed_alone",
    ),
    "a client trains the base's head": Mutation(
        "trainer/federated/local/adapted.py",
        "            parameter.data.copy_(before[name])\n",
        "            pass\n",
        _LOCAL + "test_every_method_learns_and_leaves_the_base_as_it_was[fedit]",
    ),
    "a frozen A learns": Mutation(
        "trainer/federated/local/adapted.py",
        '({"A"} if plan.freeze_a else set())',
        "set()",
        _LOCAL + "test_a_stays_in_ffa_and_b_with_its_client",
    ),
    "a client's own B travels": Mutation(
        "trainer/federated/local/training.py",
        "if plan.keep_b and _is_own(name)",
        "if False",
        _LOCAL + "test_a_stays_in_ffa_and_b_with_its_client",
    ),
    "a loss that is no number is trained on": Mutation(
        "trainer/federated/local/training.py",
        "if not math.isfinite(losses[-1]):",
        "if False:",
        _LOCAL + "test_bad_data_is_said_and_leaves_the_base",
    ),
    "clients may go as far as they like": Mutation(
        "trainer/federated/local/training.py",
        "plan.proximal_mu / 2 *",
        "0 *",
        _LOCAL + "test_a_proximal_term_keeps_clients_near",
    ),
    "NaN is averaged": Mutation(
        "trainer/federated/checking.py",
        'return "" if np.isfinite(array).all() else',
        'return "" if True else',
        _BAD,
    ),
    "an update of another round counts": Mutation(
        "trainer/federated/checking.py",
        "if update.round != number:",
        "if False:",
        _BAD,
    ),
    "one update may outweigh all": Mutation(
        "trainer/federated/checking.py",
        "if limits.norm and far > limits.norm:",
        "if False:",
        _BAD,
    ),
    "strangers are heard": Mutation(
        "trainer/federated/checking.py",
        'why = "it was not asked"',
        'why = ""',
        _CHECKS + "test_who_was_not_asked_is_not_heard",
    ),
    "an update is not clipped": Mutation(
        "trainer/federated/privacy.py",
        "part = min(1.0, clip / max(",
        "part = min(1.0, 1.0 + clip / max(",
        _CHECKS + "test_an_update_is_cut_to_its_norm_and_counts_once",
    ),
    "every round has the same noise": Mutation(
        "trainer/federated/privacy.py",
        "key=[seed, round]",
        "key=[seed, 0]",
        _CHECKS + "test_noise_of_a_mean_is_of_its_size",
    ),
    "a share of clients costs what all would": Mutation(
        "trainer/federated/privacy.py",
        "    if share == 1:\n",
        "    if share > 0:\n",
        _CHECKS + "test_epsilon_is_that_of_another_accountant",
    ),
    "ranks are passed over in silence": Mutation(
        "trainer/federated/config.py",
        "if not ranks and any(rank != self.rank for rank in self.ranks.values()):",
        "if False:",
        _SUMS + "test_a_method_says_what_it_cannot_do",
    ),
    "a robust average is passed over in silence": Mutation(
        "trainer/federated/config.py",
        'if not averages and self.average != "mean":',
        "if False:",
        _SUMS + "test_a_method_says_what_it_cannot_do",
    ),
    "a client of high rank begins with fewer": Mutation(
        "trainer/federated/lora.py",
        "first_factors(model, config.most_rank, config.seed)",
        "first_factors(model, config.rank, config.seed)",
        _SUMS + "test_each_rank_gets_the_best_of_it",
    ),
    "a stack grows beyond what is served": Mutation(
        "trainer/federated/exact.py",
        "if len(each.a) <= MOST_RANK",
        "if True",
        _SUMS + "test_a_stack_is_published_at_a_rank_that_can_be_served",
    ),
    "noise stays where it was": Mutation(
        "trainer/federated/factoring.py",
        ".permutation(flat[places])",
        ".permutation(1) * 0 + flat[places]",
        _STAGES + "test_what_was_learnt_is_told_from_noise",
    ),
    "a sparse client moves what is off the mask": Mutation(
        "trainer/federated/local/adapted.py",
        "flat = weight.float().reshape(-1)",
        "flat = weight.float().reshape(-1) * (1 - 1e-4)",
        _LOCAL + "test_sparse_training_moves_what_is_on_the_mask_alone",
    ),
    "half precision swallows what is learnt": Mutation(
        "trainer/federated/local/adapted.py",
        "nn.Parameter(value, requires_grad=name in trained)",
        "nn.Parameter(value.to(base.weight.dtype), requires_grad=name in trained)",
        _LOCAL + "test_a_base_of_half_precision_learns_and_stays[full]",
    ),
    "a client's own B is forgotten": Mutation(
        "trainer/federated/one_factor.py",
        "arrays={**state.arrays, **kept}",
        "arrays={**kept, **state.arrays}",
        _LOCAL + "test_fedsa_gives_each_client_an_adapter_of_its_own",
    ),
    "another base is averaged": Mutation(
        "trainer/federated/checking.py",
        "if limits.base and update.base != limits.base:",
        "if False:",
        _BAD,
    ),
    "one client is a quorum": Mutation(
        "trainer/federated/checking.py",
        "return in_order(good), refused",
        "return good, refused",
        _CHECKS + "test_the_last_of_a_client_counts_once",
    ),
    "whoever is drawn is so with others": Mutation(
        "trainer/federated/sampling.py",
        ".random(len(there)) < share",
        ".permutation(len(there)) < share * len(there)",
        _STAGES + "test_who_is_drawn_is_so_whoever_else_is",
    ),
    "noise is of each client, not of the sum": Mutation(
        "trainer/federated/privacy.py",
        "deviation = privacy.noise * privacy.clip / clients",
        "deviation = privacy.noise * privacy.clip",
        _CHECKS + "test_noise_of_a_mean_is_of_its_size",
    ),
}
