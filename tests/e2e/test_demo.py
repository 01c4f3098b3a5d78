"""The demo as a newcomer runs it: real processes, a real model, real adapters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(180)
def test_the_demo_answers_in_three_voices_and_stops_everything(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "lorikeet"), "demo", "--port", "0"]
    environment = os.environ | {"LORIKEET_HOME": str(tmp_path), "COLUMNS": "120"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Ahoy" in done.stdout
    assert '{"topic":' in done.stdout
    assert "3 sequences with 3 different weights" in " ".join(done.stdout.split())
    assert "grpcurl" in done.stdout
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert left.stdout == b""
