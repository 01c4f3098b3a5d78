"""Which client has which rows: splits of one data set as unlike, or not, as wanted.

All give every row to exactly one client and name no client without rows; those that draw are their
seed's. A row is its index.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InvalidRequest

Rows = NDArray[np.int64]  # in ascending order
Partition = Mapping[str, Rows]


def by_dirichlet(labels: Sequence[str], *, clients: int, alpha: float, seed: int) -> Partition:
    """Each label's rows in shares drawn from Dirichlet(alpha): the smaller alpha, the fewer clients
    have most of a label. There may be fewer clients than asked for: those that got no row are not
    there, as drawing again until all have some may never end where alpha is small."""
    _check(labels, clients)
    if not (math.isfinite(alpha) and alpha > 0):
        raise InvalidRequest.of("alpha", f"must be a finite number above 0, not {alpha:g}")
    drawn = np.random.default_rng(seed)
    parts: list[list[Rows]] = [[] for _ in range(clients)]
    for rows in _by_value(labels).values():
        shares = drawn.dirichlet(np.full(clients, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        for part, its in zip(parts, np.split(drawn.permutation(rows), cuts), strict=True):
            part.append(its)
    return _named(parts)


def by_label(labels: Sequence[str], *, clients: int, labels_each: int, seed: int) -> Partition:
    """No client has more than so many labels; who has a label has as much of it as others do."""
    _check(labels, clients)
    kinds = _by_value(labels)
    if not 1 <= labels_each <= len(kinds):
        raise InvalidRequest.of("labels_each", f"must be 1 to {len(kinds)}, which there are")
    if clients * labels_each < len(kinds):
        what = f"of {clients} clients are too few: there are {len(kinds)} labels"
        raise InvalidRequest.of("labels_each", f"{labels_each} {what}")
    drawn = np.random.default_rng(seed)
    # Dealt in turn, so that neighbours differ: no client is dealt a label twice.
    dealt = np.resize(drawn.permutation(sorted(kinds)), clients * labels_each)
    owners = np.repeat(drawn.permutation(clients), labels_each)
    parts: list[list[Rows]] = [[] for _ in range(clients)]
    for label, rows in kinds.items():
        holders = owners[dealt == label]
        pieces = np.array_split(drawn.permutation(rows), len(holders))
        for holder, piece in zip(holders, pieces, strict=True):
            parts[holder].append(piece)
    return _named(parts)


def by_source(sources: Sequence[str]) -> Partition:
    """A client for everyone that rows come from: unlike each other by nature."""
    _check(sources, 1)
    return _by_value(sources)


def held_out(labels: Sequence[str], *, each: int, seed: int) -> tuple[Rows, Rows]:
    """The rows that are left, and as many of every label that are not: a balanced set."""
    drawn = np.random.default_rng(seed)
    apart = []
    for label, rows in _by_value(labels).items():
        if len(rows) <= each:
            what = f"{label!r} has {len(rows)} rows: {each} held out leave none"
            raise InvalidRequest.of("data", what)
        apart.append(drawn.choice(rows, each, replace=False))
    held = np.sort(np.concatenate(apart))
    return np.setdiff1d(np.arange(len(labels)), held), held


def counts(partition: Partition, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """Of each client's rows, by label; labels in one order for all."""
    kinds = sorted(set(labels))
    found: dict[str, dict[str, int]] = {}
    for client, rows in partition.items():
        found[client] = dict.fromkeys(kinds, 0)
        for row in rows:
            found[client][labels[row]] += 1
    return found


def _check(values: Sequence[str], clients: int) -> None:
    if not len(values):
        raise InvalidRequest.of("data", "has no rows")
    if not 1 <= clients <= len(values):
        what = f"must be 1 to {len(values)}, the number of rows, not {clients}"
        raise InvalidRequest.of("clients", what)


def _by_value(values: Sequence[str]) -> dict[str, Rows]:
    found: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        found.setdefault(value, []).append(row)
    return {value: np.array(found[value], np.int64) for value in sorted(found)}


def _named(parts: Sequence[Sequence[Rows]]) -> Partition:
    digits = len(str(len(parts) - 1))
    whole = (np.sort(np.concatenate(part)) for part in parts)
    return {f"client-{n:0{digits}}": rows for n, rows in enumerate(whole) if len(rows)}
