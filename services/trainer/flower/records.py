"""Orders and answers as Flower's records, and back."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from services.core.errors import InvalidRequest
from services.trainer.federated.words import Arrays, Kind, Plan
from services.trainer.flower.sites import Answer, Brief, Order
from services.trainer.task import Base

ARRAYS, ORDER, BASE, ANSWER = "arrays", "order", "base", "answer"


def order_to_records(order: Order, brief: Brief) -> RecordDict:
    facts = {
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
            ARRAYS: _arrays(order.arrays),
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
        _from_arrays(records[ARRAYS]),
    )
    base = Base.from_json(json.loads(str(records[BASE]["json"])))
    labels = tuple(json.loads(facts["labels"]))
    return order, Brief(base, facts["pack_tokens"], facts["seed"], labels)


def answer_to_records(answer: Answer) -> RecordDict:
    facts: dict[str, Any] = {
        "examples": answer.examples,
        "metrics": json.dumps(dict(answer.metrics)),
        "data_sha256": answer.data_sha256,
        "rows": answer.rows,
        "refusal": answer.refusal,
    }
    return RecordDict({ARRAYS: _arrays(answer.arrays), ANSWER: ConfigRecord(facts)})


def answer_from_records(order: Order, records: RecordDict) -> Answer:
    """Who it is from, and to what, is what the server knows, not what the answer says. Raises
    InvalidRequest."""
    try:
        facts: Any = records[ANSWER]
        return Answer(
            order.client,
            order.round,
            order.attempt,
            _from_arrays(records[ARRAYS]),
            int(facts["examples"]),
            {str(key): float(value) for key, value in json.loads(facts["metrics"]).items()},
            str(facts["data_sha256"])[:64],
            int(facts["rows"]),
            str(facts["refusal"])[:1000],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest.of("answer", f"cannot be read: {error!r}") from error


def _arrays(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(arrays[name])) for name in sorted(arrays)})


def _from_arrays(record: Any) -> Arrays:
    return {name: record[name].numpy() for name in sorted(record)}
