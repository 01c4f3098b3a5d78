"""Of a data set's split among clients: who has which rows, and what nobody learns from."""

from tests.mutations.mutation import Mutation

_FILE = "trainer/partition.py"
_TEST = "tests/property/test_partition.py::"

CORPUS: dict[str, Mutation] = {
    "a row is nobody's": Mutation(
        _FILE,
        "whole = (np.sort(np.concatenate(part)) for part in parts)",
        "whole = (np.sort(np.concatenate(part))[1:] for part in parts)",
        _TEST + "test_dirichlet_gives_every_row_to_one_client",
    ),
    "who got no row is a client": Mutation(
        _FILE,
        "for n, rows in enumerate(whole) if len(rows)}",
        "for n, rows in enumerate(whole)}",
        _TEST + "test_who_gets_nothing_is_no_client",
    ),
    "labels are split alike whatever alpha is": Mutation(
        _FILE,
        "drawn.dirichlet(np.full(clients, alpha))",
        "drawn.dirichlet(np.full(clients, 1.0))",
        _TEST + "test_the_smaller_alpha_the_more_one_label_rules",
    ),
    "a client has more labels than it may": Mutation(
        _FILE,
        "np.repeat(drawn.permutation(clients), labels_each)",
        "drawn.integers(0, clients, clients * labels_each)",
        _TEST + "test_no_client_has_more_labels_than_it_may",
    ),
    "every holder has all rows of its label": Mutation(
        _FILE,
        "np.array_split(drawn.permutation(rows), len(holders))",
        "[rows] * len(holders)",
        _TEST + "test_no_client_has_more_labels_than_it_may",
    ),
    "all seeds split alike": Mutation(
        _FILE,
        "np.split(drawn.permutation(rows), cuts)",
        "np.split(rows, cuts)",
        _TEST + "test_rows_of_one_label_are_drawn",
    ),
    "what is held out is learnt": Mutation(
        _FILE,
        "np.setdiff1d(np.arange(len(labels)), held), held",
        "np.arange(len(labels)), held",
        _TEST + "test_what_is_held_out_is_balanced",
    ),
    "a row is held out twice": Mutation(
        _FILE,
        "replace=False",
        "replace=True",
        _TEST + "test_what_is_held_out_is_balanced",
    ),
}
