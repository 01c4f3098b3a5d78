"""Every invariant's test can fail: break the line that keeps it, and the test must notice."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mutations.books import BOOKS
from tests.mutations.cli import CLI
from tests.mutations.fairness import FAIRNESS
from tests.mutations.mutation import Mutation
from tests.mutations.quotas import QUOTAS
from tests.mutations.serving import SERVING
from tests.mutations.store import STORE

ROOT = Path(__file__).parent.parent.parent
MUTATIONS = SERVING | STORE | CLI | FAIRNESS | BOOKS | QUOTAS
AT_ONCE = 2

Outcomes = dict[str, Future["subprocess.CompletedProcess[str]"]]


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
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            name: pool.submit(_tested, MUTATIONS[name], tmp_path_factory.mktemp("mutated"))
            for name in asked
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_the_test_notices(name: str, outcomes: Outcomes) -> None:
    done = outcomes[name].result()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout


def _tested(mutation: Mutation, folder: Path) -> "subprocess.CompletedProcess[str]":
    shutil.copytree(ROOT / "services", folder / "services")
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    file = folder / "services" / mutation.file
    source = file.read_text()
    assert source.count(mutation.before) == 1, "the mutation no longer fits the code"
    file.write_text(source.replace(mutation.before, mutation.after))
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
            "-o", f"pythonpath={folder} .", mutation.test,
        ],
        cwd=ROOT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
