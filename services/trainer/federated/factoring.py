"""Factors of what is added to weights: the best of a rank (Eckart and Young), by SVD."""

from collections.abc import Sequence

import numpy as np

from services.trainer.federated.words import Array, Factors


def factored(delta: Array, rank: int, scaling: float) -> Factors:
    """B = U sqrt(S / scaling), A = sqrt(S / scaling) V^T of the first `rank` singular values, so
    that scaling B A is the best approximation (SLoRA, arXiv 2308.06522, section 3). Where the
    matrix has fewer, zeros follow."""
    u, s, vt = np.linalg.svd(delta.astype(np.float64), full_matrices=False)
    return _of(u, s, vt, rank, scaling)


def product(parts: Sequence[tuple[float, Factors]], rank: int, scaling: float) -> Factors:
    """The best factors of rank `rank` of sum weight * scaling B A, whose ranks may differ: by QR of
    what is stacked and an SVD of the core, so that no matrix of the layer's size is ever made
    (FlexLoRA, arXiv 2402.11505)."""
    b, a = stacked(parts)
    qb, rb = np.linalg.qr(b)
    qa, ra = np.linalg.qr(a.T)
    u, s, vt = np.linalg.svd(rb @ ra.T)
    return _of(qb @ u, s, vt @ qa.T, rank, scaling)


def stacked(parts: Sequence[tuple[float, Factors]]) -> tuple[Array, Array]:
    """B [rows, sum of ranks] and A [sum of ranks, columns], in float64, whose product is the
    weighted sum of scaling B A (FLoRA, arXiv 2409.05976)."""
    b = np.concatenate(
        [weight * each.scaling * each.b.astype(np.float64) for weight, each in parts], axis=1
    )
    a = np.concatenate([each.a.astype(np.float64) for _, each in parts], axis=0)
    return b, a


def energy(delta: Array, rank: int) -> float:
    """The part of the squared norm that the best approximation of that rank keeps; 1 of nothing."""
    squares = np.linalg.svd(delta.astype(np.float64), compute_uv=False) ** 2
    total = float(squares.sum())
    return float(squares[:rank].sum()) / total if total else 1.0


def energy_of_noise(delta: Array, rank: int, seed: int) -> float:
    """The same of the same numbers at each other's places: what is kept where nothing was learnt.
    Zeros stay where they are."""
    flat = delta.reshape(-1).copy()
    places = np.flatnonzero(flat)
    flat[places] = np.random.Generator(np.random.Philox(seed)).permutation(flat[places])
    return energy(flat.reshape(delta.shape), rank)


def _of(u: Array, s: Array, vt: Array, rank: int, scaling: float) -> Factors:
    root = np.sqrt(s[:rank] / scaling)
    a = np.zeros((rank, vt.shape[1]), np.float32)
    b = np.zeros((u.shape[0], rank), np.float32)
    a[: len(root)] = root[:, None] * vt[: len(root)]
    b[:, : len(root)] = u[:, : len(root)] * root
    return Factors(a, b, scaling)
