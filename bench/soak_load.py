"""The load of a soak, what dies under it, and what is seen of it meanwhile."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from threading import Event

from bench.soak_callers import Plan, read_told
from bench.soak_processes import holding
from bench.soak_streams import Told
from bench.soak_world import World
from tests.tiny_models import VOCABULARY

FACES = ("grpc", "http")
KILLED = ("gpu_worker", "adapter_store", "scheduler")
METERED_CALLERS = 32  # of each face


@dataclass(slots=True)
class Load:
    """A process full of callers for each face."""

    world: World
    streams: int
    seconds: float
    patience: float
    seed: int
    told: list[Told] = field(default_factory=list)
    open: list[int] = field(default_factory=list)  # streams, once a second
    _running: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def start(self) -> None:
        addresses = self.world.suite.addresses
        for face, address in zip(FACES, (addresses.gateway, addresses.http), strict=True):
            plan = Plan(
                face=face,
                address=address,
                streams=self.streams // len(FACES),
                metered=METERED_CALLERS,
                seconds=self.seconds,
                patience=self.patience,
                models=self.world.models,
                keys=self.world.keys,
                vocabulary=VOCABULARY,
                seed=self.seed,
            )
            path = self.world.suite.home / f"{face}-{self.seed}.plan"
            path.write_text(json.dumps(asdict(plan)))
            told = path.with_suffix(".told")
            command = [sys.executable, "-m", "bench.soak_callers", str(path), str(told)]
            self._running.append((subprocess.Popen(command), told))

    def wait(self) -> None:
        """Raises SystemExit if the callers themselves break."""
        opened: list[list[int]] = []
        for process, path in self._running:
            if process.wait(self.seconds + self.patience + 120) != 0:
                raise SystemExit("the callers broke")
            told, seen = read_told(path)
            self.told += told
            opened.append(seen)
        self.open = [sum(counts) for counts in zip(*opened, strict=False)]

    def stop(self) -> None:
        for process, _ in self._running:
            process.kill()
            process.wait()


@dataclass(slots=True)
class Watch:
    """Every second, in a thread of its own."""

    world: World
    done: Event = field(default_factory=Event)
    mebibytes: list[int] = field(default_factory=list)  # of the gateway
    most_tokens: int = 0  # of the metered tenant: used and reserved
    most_running: int = 0

    def run(self) -> None:
        gateway = self.world.suite.processes["gateway"]
        while not self.done.wait(1.0):
            self.mebibytes.append(holding(gateway.pid).mebibytes)
            usage = self.world.metered()
            self.most_tokens = max(self.most_tokens, usage.tokens_in_total + usage.reserved_tokens)
            self.most_running = max(self.most_running, usage.running_requests)


def kill_in_turn(world: World, *, seconds: float, every: float) -> Counter[str]:
    """How often each was killed and started again; nothing is killed in the last moments."""
    kills: Counter[str] = Counter()
    end = time.monotonic() + seconds
    for name in cycle(KILLED):
        time.sleep(max(0.0, min(every, end - time.monotonic())))
        if time.monotonic() > end - every / 4:
            break
        process = world.suite.processes[name]
        process.send_signal(signal.SIGKILL)
        process.wait()
        world.suite.launch(name)
        kills[name] += 1
        print(f"killed and started {name}, {end - time.monotonic():.0f} s left", flush=True)
    return kills
