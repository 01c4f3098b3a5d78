"""Ways to keep many adapters' updates of one module in fewer bytes, with or without neighbours.

Joint bases as in Compress-then-Serve (arXiv 2407.00066): updates B A, each divided by its norm,
share bases U and V, and each adapter keeps a core: a matrix (JD-full, alternating singular value
decompositions) or a diagonal (JD-diag, alternating least squares).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

ROUNDS = 300

Matrix = NDArray[np.float32]
Update = tuple[Matrix, Matrix]  # of one module by one adapter: a [rank, in], b [out, rank]
Form = Callable[[Sequence[Update]], tuple[list[Update], int]]  # one module's: as kept, in bytes


def forms(adapters: int, rank: int) -> Iterator[tuple[str, Form]]:
    yield "half precision", half_precision
    yield "8 bits", eight_bits
    for kept in range(1, rank + 1):
        together = kept * adapters
        yield f"each alone, rank {kept}", partial(truncated, rank=kept)
        for name, diagonal in (("JD-full", False), ("JD-diag", True)):
            yield f"{name}, rank {together}", partial(joint, rank=together, diagonal=diagonal)


def half(values: Matrix) -> Matrix:
    return values.astype(np.float16).astype(np.float32)


def half_precision(updates: Sequence[Update]) -> tuple[list[Update], int]:
    return [(half(a), half(b)) for a, b in updates], 2 * sum(a.size + b.size for a, b in updates)


def eight_bits(updates: Sequence[Update]) -> tuple[list[Update], int]:
    """With a scale of two bytes for every row of a and every column of b."""

    def rounded(rows: Matrix) -> Matrix:
        scale = np.maximum(half(np.abs(rows).max(axis=1, keepdims=True) / 127), 1e-7)
        return np.asarray(np.clip(np.round(rows / scale), -127, 127) * scale)

    kept = [(rounded(a), rounded(b.T).T) for a, b in updates]
    return kept, sum(a.size + b.size + 4 * len(a) for a, b in updates)


def truncated(updates: Sequence[Update], *, rank: int) -> tuple[list[Update], int]:
    """Each by itself, to the nearest update of this rank."""
    kept = []
    for a, b in updates:
        (left, rest_b), (right, rest_a) = np.linalg.qr(b), np.linalg.qr(a.T)
        u, s, v = np.linalg.svd(rest_b @ rest_a.T)
        root = np.sqrt(s[:rank])
        kept.append((root[:, None] * v[:rank] @ right.T, left @ u[:, :rank] * root))
    return half_precision(kept)


def joint(updates: Sequence[Update], *, rank: int, diagonal: bool) -> tuple[list[Update], int]:
    """Solved within the span of all a and all b, where the bases must be."""
    left, rest_b = np.linalg.qr(np.hstack([b for _, b in updates]))
    right, rest_a = np.linalg.qr(np.vstack([a for a, _ in updates]).T)
    ends = np.cumsum([len(a) for a, _ in updates])[:-1]
    parts = zip(np.split(rest_b, ends, axis=1), np.split(rest_a, ends, axis=1), strict=True)
    inner = np.stack([b @ a.T for b, a in parts])  # [adapters, left, right]
    norms = np.maximum(np.linalg.norm(inner, axis=(1, 2)), 1e-12)
    u, cores, v = (_diagonal if diagonal else _full)(inner / norms[:, None, None], rank)
    up, down, cores = half(left @ u), half(v.T @ right.T), half(cores * norms[:, None, None])
    numbers = up.size + down.size + len(updates) * (rank if diagonal else rank * rank)
    return [(down, up @ core) for core in cores], 2 * numbers


def _full(inner: Matrix, rank: int) -> tuple[Matrix, Matrix, Matrix]:
    v = _leading(inner.transpose(0, 2, 1), rank)
    for _ in range(ROUNDS):
        u = _leading(inner @ v, rank)
        v = _leading(inner.transpose(0, 2, 1) @ u, rank)
    return u, np.asarray(u.T @ inner @ v, np.float32), v


def _diagonal(inner: Matrix, rank: int) -> tuple[Matrix, Matrix, Matrix]:
    u, v = _leading(inner, rank), _leading(inner.transpose(0, 2, 1), rank)
    for _ in range(ROUNDS):
        d = np.einsum("nij,ir,jr->nr", inner, u, v) @ np.linalg.pinv((u.T @ u) * (v.T @ v))
        u = np.einsum("nij,nr,jr->ir", inner, d, v) @ np.linalg.pinv((d.T @ d) * (v.T @ v))
        u /= np.maximum(np.linalg.norm(u, axis=0), 1e-12)
        v = np.einsum("nij,nr,ir->jr", inner, d, u) @ np.linalg.pinv((d.T @ d) * (u.T @ u))
        v /= np.maximum(np.linalg.norm(v, axis=0), 1e-12)
    d = np.einsum("nij,ir,jr->nr", inner, u, v) @ np.linalg.pinv((u.T @ u) * (v.T @ v))
    return u, np.stack([np.diag(row) for row in d]), v


def _leading(matrices: Matrix, rank: int) -> Matrix:
    """The first left singular vectors of all side by side."""
    return np.linalg.svd(np.hstack(list(matrices)), full_matrices=False)[0][:, :rank]


def error(kept: Update, update: Update) -> float:
    """Of the product, relative, without making it."""

    def norm(a: Matrix, b: Matrix) -> float:
        return float(np.linalg.norm(np.linalg.qr(b)[1] @ np.linalg.qr(a.T)[1].T))

    (a, b), (kept_a, kept_b) = update, kept
    return norm(np.vstack([a, kept_a]), np.hstack([b, -kept_b])) / norm(a, b)
