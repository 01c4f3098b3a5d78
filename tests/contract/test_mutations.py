"""Every invariant's test can fail: break the line that keeps it, and the test must notice.

A commit tries a fifth of them, another than other commits; LORIKEET_MUTATIONS=all tries all.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import pytest

from tests.mutations.books import BOOKS
from tests.mutations.claims import CLAIMS
from tests.mutations.cli import CLI
from tests.mutations.corpus import CORPUS
from tests.mutations.failures import FAILURES
from tests.mutations.fairness import FAIRNESS
from tests.mutations.federated import FEDERATED
from tests.mutations.flower import FLOWER
from tests.mutations.merging import MERGING
from tests.mutations.migration import MIGRATION
from tests.mutations.moves import MOVES
from tests.mutations.mutation import Mutation
from tests.mutations.native_moves import NATIVE_MOVES
from tests.mutations.parallel import PARALLEL
from tests.mutations.placement import PLACEMENT
from tests.mutations.quantised import QUANTISED
from tests.mutations.quotas import QUOTAS
from tests.mutations.reports import REPORTS
from tests.mutations.scheduler import SCHEDULER
from tests.mutations.serving import SERVING
from tests.mutations.spread import SPREAD
from tests.mutations.store import STORE
from tests.mutations.tiers import TIERS
from tests.mutations.training import TRAINING

ROOT = Path(__file__).parent.parent.parent
MUTATIONS = (
    BOOKS
    | CLAIMS
    | CLI
    | CORPUS
    | FAILURES
    | FAIRNESS
    | FLOWER
    | MERGING
    | MIGRATION
    | MOVES
    | PARALLEL
    | NATIVE_MOVES
    | PLACEMENT
    | QUANTISED
    | QUOTAS
    | SERVING
    | STORE
    | TIERS
    | FEDERATED
    | TRAINING
    | SCHEDULER
    | REPORTS
    | SPREAD
)
AT_ONCE = 2
PARTS = 5

Outcomes = dict[str, Future["Outcome"]]


@dataclass(frozen=True, slots=True)
class Outcome:
    returncode: int
    output: str


class Servers:
    """Each of the threads that run mutations asks one of its own."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[subprocess.Popen[str]] = []

    def ask(self, folder: Path, test: str) -> Outcome:
        if not hasattr(self._own, "server"):
            self._own.server = subprocess.Popen(
                [sys.executable, "-m", "tests.mutations.fork_server"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
            self._all.append(self._own.server)
        server = self._own.server
        server.stdin.write(json.dumps({"folder": str(folder), "test": test}) + "\n")
        server.stdin.flush()
        return Outcome(**json.loads(server.stdout.readline()))

    def stop(self) -> None:
        for server in self._all:
            server.communicate()


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcomes]:
    """Of the mutations that were asked for, as they come in."""
    asked = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_the_test_notices"
    ]
    servers = Servers()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            name: pool.submit(_tested, MUTATIONS[name], tmp_path_factory.mktemp("mutated"), servers)
            for name in asked
        }
        pool.shutdown(cancel_futures=True)
    servers.stop()


def _turn() -> int | None:
    """Which part is tried; None: all are."""
    if os.environ.get("LORIKEET_MUTATIONS") == "all":
        return None
    asked = ["git", "rev-parse", "HEAD"]
    head = subprocess.run(asked, check=False, cwd=ROOT, capture_output=True, text=True)
    return int(head.stdout, 16) % PARTS if head.returncode == 0 else None


def _tried(name: str, turn: int | None) -> bool:
    return turn is None or crc32(name.encode()) % PARTS == turn


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_it_fits_the_code(name: str) -> None:
    _mutated(MUTATIONS[name], ROOT / "services")
    test = MUTATIONS[name].test.split("[")[0]
    file, *_, function = test.split("::")
    assert f"def {function}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("name", [name for name in MUTATIONS if _tried(name, _turn())])
def test_the_test_notices(name: str, outcomes: Outcomes) -> None:
    done = outcomes[name].result()
    assert done.returncode == 1, done.output
    assert "FAILED" in done.output


def _tested(mutation: Mutation, folder: Path, servers: Servers) -> Outcome:
    shutil.copytree(ROOT / "services", folder / "services")
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    services = folder / "services"
    (services / mutation.file).write_text(_mutated(mutation, services))
    return servers.ask(folder, mutation.test)


def _mutated(mutation: Mutation, services: Path) -> str:
    source = (services / mutation.file).read_text()
    assert source.count(mutation.before) == 1, "the mutation no longer fits the code"
    return source.replace(mutation.before, mutation.after)
