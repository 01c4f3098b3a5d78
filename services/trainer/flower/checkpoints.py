"""All that a federation needs to go on after a round: one file, whole or not there."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
import pickle

from services.trainer.durable import make_durable
from services.trainer.federated import State
from services.trainer.federation import TookPart


@dataclass(frozen=True, slots=True)
class Reached:
    """`rounds`: done. `metrics`: of the last one."""

    rounds: int
    state: State
    participants: Mapping[str, TookPart]
    metrics: Mapping[str, float]


def write_round(file: Path, reached: Reached) -> None:
    """What this returned from survives any crash."""
    draft = file.with_suffix(".part")
    draft.write_bytes(pickle.dumps(reached))
    make_durable(draft)
    draft.replace(file)
    make_durable(file.parent)


def read_round(file: Path) -> Reached:
    return pickle.loads(file.read_bytes())
