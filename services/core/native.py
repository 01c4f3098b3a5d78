"""C beside the Python that calls it: compiled once for this machine, kept in a cache folder."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


def compiled(name: str, folder: Path, flags: Sequence[str], made_for: str = "") -> Path:
    """The library of all C in the folder. `made_for`: whatever else it depends on, beyond the
    sources, the compiler and the flags. Raises OSError where it cannot be made."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise OSError("there is no C compiler (set CC)")
    sources, headers = sorted(folder.glob("*.c")), sorted(folder.glob("*.h"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in [*sources, *headers]))
    key.update(f"{compiler} {flags} {platform.machine()} {made_for}".encode())
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorikeet"
    path = kept / f"{name}-{key.hexdigest()[:16]}.so"
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept) as scratch:
            made = Path(scratch) / path.name
            _run([compiler, *flags, "-shared", "-fPIC", "-o", str(made), *map(str, sources), "-lm"])
            made.replace(path)
    return path


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace")[-500:]
        raise OSError(f"{command[0]} failed: {said}") from error
