"""Orders and answers as Flower's records, and back."""

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from services.core.errors import InvalidRequest
from services.trainer.federated.words import Arrays, Kind, Plan
from services.trainer.flower.sites import Answer, Brief, Order
from services.trainer.task import Base

ARRAYS, ORDER, BASE, ANSWER = "arrays", "order", "base", "answer"
ALL, LAYOUT = "all", "layout"


def order_to_records(order: Order, brief: Brief) -> RecordDict:
    arrays, layout = _packed(order.arrays)
    facts = {
        LAYOUT: layout,
        "client": order.client,
        "round": order.round,
        "attempt": order.attempt,
        "plan": json.dumps(asdict(order.plan) | {"kind": order.plan.kind.value}),
        "pack_tokens": brief.pack_tokens,
        "seed": brief.seed,
        "labels": json.dumps(brief.labels),
    }
    base = asdict(brief.base) | {"path": ""}
    return RecordDict(
        {
            ARRAYS: arrays,
            ORDER: ConfigRecord(facts),
            BASE: ConfigRecord({"json": json.dumps(base)}),
        }
    )


def order_from_records(records: RecordDict) -> tuple[Order, Brief]:
    facts: Any = records[ORDER]
    plan: dict[str, Any] = json.loads(facts["plan"])
    order = Order(
        facts["client"],
        facts["round"],
        facts["attempt"],
        Plan(**plan | {"kind": Kind(plan["kind"])}),
        _unpacked(records[ARRAYS], facts[LAYOUT]),
    )
    base = Base.from_json(json.loads(str(records[BASE]["json"])))
    labels = tuple(json.loads(facts["labels"]))
    return order, Brief(base, facts["pack_tokens"], facts["seed"], labels)


def answer_to_records(answer: Answer) -> RecordDict:
    arrays, layout = _packed(answer.arrays)
    facts: dict[str, Any] = {
        LAYOUT: layout,
        "examples": answer.examples,
        "metrics": json.dumps(dict(answer.metrics)),
        "data_sha256": answer.data_sha256,
        "rows": answer.rows,
        "refusal": answer.refusal,
    }
    return RecordDict({ARRAYS: arrays, ANSWER: ConfigRecord(facts)})


def answer_from_records(order: Order, records: RecordDict) -> Answer:
    """Who it is from, and to what, is what the server knows, not what the answer says. Raises
    InvalidRequest."""
    try:
        facts: Any = records[ANSWER]
        return Answer(
            order.client,
            order.round,
            order.attempt,
            _unpacked(records[ARRAYS], facts[LAYOUT]),
            int(facts["examples"]),
            {str(key): float(value) for key, value in json.loads(facts["metrics"]).items()},
            str(facts["data_sha256"])[:64],
            int(facts["rows"]),
            str(facts["refusal"])[:1000],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest.of("answer", f"cannot be read: {error!r}") from error


def _packed(arrays: Arrays) -> tuple[ArrayRecord, str]:
    """All in one, and its layout: Flower carries each array as an object, and several calls."""
    names = sorted(arrays)
    flat = [arrays[name].reshape(-1) for name in names]
    whole = np.concatenate([np.zeros(0, np.float32), *flat])
    return ArrayRecord({ALL: Array(whole)}), json.dumps([[n, arrays[n].shape] for n in names])


def _unpacked(record: Any, layout: str) -> Arrays:
    """Raises ValueError."""
    whole = record[ALL].numpy()
    sizes = {str(name): tuple(map(int, shape)) for name, shape in json.loads(layout)}
    if whole.dtype != np.float32 or whole.shape != (sum(map(math.prod, sizes.values())),):
        raise ValueError(f"{whole.dtype} {list(whole.shape)} is not what its layout says")
    arrays, start = {}, 0
    for name, shape in sizes.items():
        arrays[name] = whole[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    return arrays
