"""How many bytes of arrays a plan makes travel (section 1.4 of the literature's arithmetic)."""

from services.trainer.federated.masks import chosen
from services.trainer.federated.words import Arrays, Kind, Model, Plan

BYTES = 4


def payload_bytes(plan: Plan, model: Model) -> int:
    """In one direction, for one client in one round; a mask's seed is in the plan, and factors that
    are frozen (see exact.Frozen) come on top, downwards."""
    numbers = sum(
        _of_layer(plan, layer.rows, layer.columns)
        if plan.kind is not Kind.SPARSE
        else chosen(layer, plan.density)
        for layer in model.layers
    )
    if not plan.keep_b:
        numbers += sum(array.size for array in model.head.values())
    return BYTES * numbers


def array_bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


def _of_layer(plan: Plan, rows: int, columns: int) -> int:
    if plan.kind is Kind.FULL:
        return rows * columns
    a = 0 if plan.freeze_a else plan.rank * columns
    return a + (0 if plan.keep_b else plan.rank * rows)
