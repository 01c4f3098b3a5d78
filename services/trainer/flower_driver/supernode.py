"""A participant's SuperNode: what it is started with, and started again."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.trainer.flower_driver.certificates import certificates
from services.trainer.flower_driver.environment import Flower
from services.trainer.flower_driver.processes import Child

NODE, CLIENT_APP = "services.trainer.flower.node", "flwr-clientapp"
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
            str(flower.program("python")), "-m", NODE,
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


class Keeper:
    """Keeps a SuperNode running: one that ends is started again, as it has to be when there is no
    job yet that names its key."""

    def __init__(self, node: SuperNode, flower: Flower, *, told: Callable[[str], None]) -> None:
        """`told` of each start and end."""
        self.node = node
        self._flower = flower
        self._told = told
        self._stopped = threading.Event()
        self._child: Child | None = None

    def run(self) -> None:
        """Until it is stopped."""
        while not self._stopped.is_set():
            child = self._child = self.node.start(self._flower)
            self._told(f"{self.node.name}: process {child.pid} dials {self.node.superlink}")
            try:
                while child.is_alive and not self._stopped.wait(LOOK_SECONDS):
                    pass
            finally:
                child.stop()
            if not self._stopped.wait(AGAIN_SECONDS):
                self._told(f"{self.node.name}: process {child.pid} ended; again")

    def stop(self) -> None:
        self._stopped.set()

    def kill(self) -> None:
        """As a machine that fails does. It is started again."""
        if self._child is not None:
            self._child.kill()

    @property
    def is_at_work(self) -> bool:
        """Whether it computes something for a round now."""
        return self._child is not None and self._child.has_started(CLIENT_APP)


@contextmanager
def kept(keepers: Sequence[Keeper]) -> Iterator[None]:
    """All run, until the block ends."""
    threads = [threading.Thread(target=each.run) for each in keepers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for each in keepers:
            each.stop()
        for thread in threads:
            thread.join()
