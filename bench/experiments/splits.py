"""Shows how the corpus is split among clients: python -m bench.experiments.splits --alpha 0.1

The same rows are held out whatever the split: a test set and a validation set, each balanced.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from bench.experiments.cells import TEAMS
from bench.experiments.corpus import Row, read_corpus
from services.cli.split_plot import split_plot
from services.trainer.partition import Partition, Rows, by_dirichlet, by_source, counts, held_out

SHOWN = (100.0, 0.1, 0.03, TEAMS)
TEST_EACH, VALIDATION_EACH = 30, 20  # rows of a label
TEAM_ROWS = 40  # that a team must have to be a client; rows of others are left out


@dataclass(frozen=True, slots=True)
class Parts:
    learnt: Rows
    validation: Rows
    test: Rows


def parts(corpus: Sequence[Row]) -> Parts:
    rest, test = held_out([row.label for row in corpus], each=TEST_EACH, seed=0)
    labels = [corpus[row].label for row in rest]
    learnt, validation = held_out(labels, each=VALIDATION_EACH, seed=0)
    return Parts(rest[learnt], rest[validation], test)


def split(corpus: Sequence[Row], *, alpha: float, clients: int, seed: int) -> Partition:
    """Of the rows that are learnt."""
    learnt = parts(corpus).learnt
    if alpha == TEAMS:
        teams = by_source([corpus[row].source for row in learnt])
        return {team: learnt[its] for team, its in teams.items() if len(its) >= TEAM_ROWS}
    labels = [corpus[row].label for row in learnt]
    found = by_dirichlet(labels, clients=clients, alpha=alpha, seed=seed)
    return {client: learnt[its] for client, its in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.experiments.splits")
    parser.add_argument("--alpha", type=float, default=0.1, help="0: teams that maintain packages")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    corpus = read_corpus()
    found = split(corpus, alpha=asked.alpha, clients=asked.clients, seed=asked.seed)
    Console().print(split_plot(counts(found, [row.label for row in corpus])))


if __name__ == "__main__":
    main()
