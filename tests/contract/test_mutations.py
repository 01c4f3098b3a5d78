"""Every invariant's test can fail: break the line that keeps it, and the test must notice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations.cli import CLI
from tests.mutations.serving import SERVING
from tests.mutations.store import STORE

ROOT = Path(__file__).parent.parent.parent


MUTATIONS = SERVING | STORE | CLI


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_the_test_notices(name: str, tmp_path: Path) -> None:
    mutation = MUTATIONS[name]
    shutil.copytree(ROOT / "services", tmp_path / "services")
    file = tmp_path / "services" / mutation.file
    source = file.read_text()
    assert source.count(mutation.before) == 1, "the mutation no longer fits the code"
    file.write_text(source.replace(mutation.before, mutation.after))
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
            "-o", f"pythonpath={tmp_path} .", mutation.test,
        ],
        cwd=ROOT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
