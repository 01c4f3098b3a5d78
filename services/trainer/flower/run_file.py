"""What the driver leaves for the ServerApp, in a file that an environment variable names: sites
never hear of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer.task import FederatedTask

VARIABLE = "LORIKEET_FEDERATED_RUN"


@dataclass(frozen=True, slots=True)
class RunFile:
    """`nodes`: by participant, the number of its node. `news`: where to tell what happens."""

    task: FederatedTask
    nodes: dict[str, int]
    news: Path

    def write(self, file: Path) -> None:
        raw = {"task": self.task.to_json(), "nodes": self.nodes, "news": str(self.news)}
        file.touch(mode=0o600)
        file.write_text(json.dumps(raw))

    @classmethod
    def read(cls, file: Path) -> "RunFile":
        raw: dict[str, Any] = json.loads(file.read_text())
        return cls(FederatedTask.from_json(raw["task"]), raw["nodes"], Path(raw["news"]))
