"""What ends a suite, in a process that a shell started in the background."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
from services.cli.suite import interruptible
try:
    with interruptible():
        print("inside", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_interrupts_though_a_shell_had_it_ignored(number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        process.send_signal(number)
        assert process.stdout.readline() == "interrupted\n"
