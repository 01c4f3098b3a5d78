"""All that a federation needs to go on after a round: one file, whole or not there."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save_file

from services.trainer.durable import make_durable
from services.trainer.federated.state import State
from services.trainer.federation import TookPart

REACHED = "reached"


@dataclass(frozen=True, slots=True)
class Reached:
    """`rounds`: done. `metrics`: of the last one."""

    rounds: int
    state: State
    participants: Mapping[str, TookPart]
    metrics: Mapping[str, float]


def write_round(file: Path, reached: Reached) -> None:
    """What this returned from survives any crash."""
    draft, state = file.with_suffix(".part"), file.with_suffix(".state")
    reached.state.save(state)
    with safe_open(state, framework="numpy") as opened:
        about = opened.metadata()
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    rest = {
        "rounds": reached.rounds,
        "participants": [asdict(each) for each in reached.participants.values()],
        "metrics": dict(reached.metrics),
    }
    save_file(arrays, draft, about | {REACHED: json.dumps(rest)})
    state.unlink()
    make_durable(draft)
    draft.replace(file)
    make_durable(file.parent)


def read_round(file: Path) -> Reached:
    with safe_open(file, framework="numpy") as opened:
        rest: dict[str, Any] = json.loads(opened.metadata()[REACHED])
    participants = {each["name"]: TookPart(**each) for each in rest["participants"]}
    return Reached(rest["rounds"], State.load(file), participants, rest["metrics"])
