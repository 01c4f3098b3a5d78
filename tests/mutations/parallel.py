"""Of models that are dealt out to a group: the same logits, no byte too many, and one end."""

from tests.mutations.mutation import Mutation

_HERE = "tests/unit/gpu_worker/parallel/test_tensor_parallel.py::"
_GROUPS = "tests/unit/gpu_worker/parallel/test_groups.py::"
_SAME = _HERE + "test_a_mixed_batch_has_the_logits_of_the_whole_model[sharded-"
_PARALLEL = "gpu_worker/model/parallel/"

PARALLEL = {
    "a bias is added by every member": Mutation(
        _PARALLEL + "network.py",
        "return whole if member.number == 0 else torch.zeros_like(whole)",
        "return whole",
        _SAME + "2]",
    ),
    "the rest of the vocabulary is nobody's": Mutation(
        _PARALLEL + "network.py",
        "each = -(-config.vocabulary // member.of)",
        "each = config.vocabulary // member.of",
        _SAME + "4]",
    ),
    "a group has heads that it cannot deal out": Mutation(
        _PARALLEL + "network.py",
        "for name, size in parts.items() if size % member.of]",
        "for name, size in parts.items() if size < member.of]",
        _GROUPS + "test_what_does_not_divide_is_refused",
    ),
    "every member adds to the first one's columns": Mutation(
        _PARALLEL + "deltas.py",
        "own = self.collectives.member.part(y.shape[1])",
        "own = slice(y.shape[1] // self.collectives.member.of)",
        _SAME + "2]",
    ),
    "every member gets the leader's part of an adapter": Mutation(
        _PARALLEL + "factors.py",
        "self._member.number * self._elements + offset",
        "offset",
        _SAME + "2]",
    ),
    "ranks that do not divide are cut off": Mutation(
        _PARALLEL + "factors.py",
        "own = a[member.number :: member.of]",
        "own = a[member.number :: member.of]\n    own[-1] *= missing == 0",
        _SAME + "4]",
    ),
    "ranks are filled up to tiles before they are exchanged": Mutation(
        _PARALLEL + "factors.py",
        "missing = -len(factors.a) % member.of",
        "missing = -len(factors.a) % (16 * member.of)",
        _HERE + "test_bytes_for_adapters_are_what_the_formula_says[targets0-5-2]",
    ),
    "any adapter is taken for a block-diagonal one": Mutation(
        _PARALLEL + "factors.py",
        "if len(matrix) % members == 0:",
        "if len(matrix) % members == 0:\n        return\n    if len(matrix) % members == 0:",
        _HERE + "test_adapters_that_are_not_block_diagonal_are_refused_there",
    ),
    "heads that leave a group are in any order": Mutation(
        _PARALLEL + "runner.py",
        "torch.cat(by_head, 3)",
        "torch.cat(by_head[::-1], 3)",
        _GROUPS + "test_keys_and_values_are_carried_between_a_group_and_a_worker_without_one",
    ),
    "adapters that came are told again and again": Mutation(
        _PARALLEL + "runner.py",
        "changes, self._changes = self._changes, []",
        "changes = self._changes",
        _GROUPS + "test_members_are_told_a_step_in_one_small_message",
    ),
    "a lost member is waited for": Mutation(
        _PARALLEL + "group.py",
        "            os._exit(EXIT_MEMBER_LOST)\n",
        "            pass\n",
        _GROUPS + "test_a_member_that_ends_ends_the_worker",
    ),
    "a group may merge": Mutation(
        "gpu_worker/settings.py",
        "if self.tensor_parallel > 1 and self.merging",
        "if self.tensor_parallel > 8 and self.merging",
        _GROUPS + "test_a_group_that_is_to_merge_is_refused",
    ),
}
