"""A participant's SuperNode: what it is started with, and started again."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.trainer.flower_driver.certificates import certificates
from services.trainer.flower_driver.environment import Flower
from services.trainer.flower_driver.processes import Child

AGAIN_SECONDS, LOOK_SECONDS = 2.0, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperNode:
    """`folder`: its own. `superlink` and its `authority`: where it dials in. `base` and its
    `fingerprint`: the model's files, unpacked. `port`: of the loopback interface, for itself."""

    name: str
    folder: Path
    superlink: str
    authority: Path
    key: Path
    data: Path
    base: Path
    fingerprint: str
    port: int
    threads: int = 0

    def start(self, flower: Flower) -> Child:
        """With a process group of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = certificates(self.folder / "own", ["127.0.0.1"], server="node")
        command = [
            str(flower.program("flower-supernode")),
            "--superlink", self.superlink,
            "--root-certificates", str(self.authority),
            "--auth-supernode-private-key", str(self.key),
            "--host", "127.0.0.1", "--port", str(self.port),
            "--ssl-ca-certfile", str(own.authority),
            "--ssl-certfile", str(own.certificate),
            "--ssl-keyfile", str(own.key),
            "--node-config", self._config(),
        ]  # fmt: skip
        return Child(
            self.name,
            command,
            environment=flower.environment(self.folder / "flwr"),
            log=self.folder / "supernode.log",
            apart=True,
        )

    def keep_running(
        self, flower: Flower, *, told: Callable[[str], None], stop: threading.Event
    ) -> None:
        """Until then: one that ends is started again, as when there is no job yet that names its
        key. `told` of each start and end."""
        while not stop.is_set():
            node = self.start(flower)
            told(f"{self.name}: process {node.pid} dials {self.superlink}")
            try:
                while node.is_alive and not stop.wait(LOOK_SECONDS):
                    pass
            finally:
                node.stop()
            if not stop.wait(AGAIN_SECONDS):
                told(f"{self.name}: process {node.pid} ended; again")

    def _config(self) -> str:
        """As Flower reads it: values of TOML."""
        told: dict[str, str | int] = {
            "site": self.name,
            "data": str(self.data.absolute()),
            "base": str(self.base.absolute()),
            "fingerprint": self.fingerprint,
            "threads": self.threads,
        }
        return " ".join(f"{name}={_toml(value)}" for name, value in told.items())


def _toml(value: str | int) -> str:
    return str(value) if isinstance(value, int) else '"' + value + '"'
