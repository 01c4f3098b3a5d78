"""Of greedy moves that are planned in C."""

from tests.mutations.mutation import Mutation

_IN_C = "tests/property/test_native_moves.py::test_moves_are_the_references"
_NATIVE = "tests/unit/policies/migration/test_native.py::"

NATIVE_MOVES: dict[str, Mutation] = {
    "in C room is given to as many as like it": Mutation(
        "policies/migration/native/place.c",
        "    place->room_tokens -= needs(place, sequence, adapter);\n",
        "",
        _IN_C,
    ),
    "in C what will be generated needs no room": Mutation(
        "policies/migration/native/place.c",
        "place->free_tokens - place->tokens_left - place",
        "place->free_tokens - place",
        _IN_C,
    ),
    "in C what is judged together is never taken back": Mutation(
        "policies/migration/native/greedy.c",
        "    after.adapters[adapter] = flags; /* its place's own */\n",
        "",
        _IN_C,
    ),
    "in C who runs moves for any gain": Mutation(
        "policies/migration/native/greedy.c",
        "gains > MIN_GAIN_OVER_COST * costs",
        "gains > 0",
        _IN_C,
    ),
    "in C of equal targets any is the best": Mutation(
        "policies/migration/native/targets.c",
        "a->work_ms == b->work_ms && number_a < number_b",
        "a->work_ms == b->work_ms",
        _IN_C,
    ),
    "in C a search for the least busy stops at the first": Mutation(
        "policies/migration/native/targets.c",
        "!least.waits && place->work_ms + least_ms > least.work_ms",
        "!least.waits",
        _IN_C,
    ),
    "in C the smallest group goes first": Mutation(
        "policies/migration/native/groups.c",
        "{-fleet->groups[i].size, i, i}",
        "{fleet->groups[i].size, i, i}",
        _IN_C,
    ),
    "in C who has less to do by now is asked as before": Mutation(
        "policies/migration/native/busiest.c",
        "    rise(fleet, fleet->spot[place]);\n    sink(fleet, fleet->spot[place]);\n",
        "",
        _IN_C,
    ),
    "in C those who are there when streams come are not slowed": Mutation(
        "policies/migration/native/crowding.c",
        "(double)target->tokens_left * target->step_sequence",
        "0.0",
        _IN_C,
    ),
    "in C sums are fused": Mutation(
        "policies/migration/native/module.py",
        '"-ffp-contract=off"',
        '"-ffp-contract=fast", "-ffast-math"',
        _IN_C,
    ),
    "in C who is named twice is two": Mutation(
        "policies/migration/native/read.c",
        " || number < before)",
        ")",
        _NATIVE + "test_what_is_odd_is_left_to_python",
    ),
    "C keeps what it read": Mutation(
        "policies/migration/native/read.c",
        "    *into = PyFloat_AsDouble(value);\n    Py_DECREF(value);\n",
        "    *into = PyFloat_AsDouble(value);\n",
        _NATIVE + "test_nothing_is_kept",
    ),
    "without a compiler nothing moves": Mutation(
        "policies/migration/native/module.py",
        "except (OSError, ImportError)",
        "except ImportError",
        _NATIVE + "test_without_a_compiler_moves_are_planned_in_python",
    ),
}
