"""Fixed random masks that a seed gives, the same for everybody: only values on them travel."""

import hashlib
import math

import numpy as np

from services.trainer.federated.words import Array, Layer

Positions = np.ndarray[tuple[int], np.dtype[np.int64]]


def chosen(layer: Layer, density: float) -> int:
    """How many of its entries a mask has; one at least."""
    return max(1, math.ceil(density * layer.rows * layer.columns))


def mask(layer: Layer, density: float, seed: int) -> Positions:
    """Positions in the flattened matrix, in order; they depend on nothing but the arguments."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {layer.name}".encode()).digest()[:8], "little")
    draw = np.random.Generator(np.random.Philox(number))
    size = layer.rows * layer.columns
    return np.sort(draw.choice(size, chosen(layer, density), replace=False, shuffle=False))


def spread(values: Array, layer: Layer, positions: Positions) -> Array:
    """The matrix [rows, columns] with the values at their positions, 0 elsewhere."""
    whole = np.zeros(layer.rows * layer.columns, np.float32)
    whole[positions] = values
    return whole.reshape(layer.rows, layer.columns)
