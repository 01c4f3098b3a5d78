"""Flower's own environment: where it is, and what its programs may not do."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.core.errors import FailedPrecondition

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".venv-flower"
SET_UP = "make flower"

# Flower posts statistics home, looks for updates and has an account by default: none of it here.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}
# Its programs find each other by PATH, and our code by PYTHONPATH.
PASSED_ON = ("HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")


@dataclass(frozen=True, slots=True)
class Flower:
    """An environment with Flower in it."""

    folder: Path

    @classmethod
    def found(cls, folder: Path | None = None) -> "Flower":
        """Raises FailedPrecondition that says how to make one."""
        flower = cls(folder or FOLDER)
        if not flower.program("flower-superlink").exists():
            raise FailedPrecondition(
                f"federated training needs Flower's environment, and {flower.folder} has none; "
                f"`{SET_UP}` makes it"
            )
        return flower

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """For its programs, which keep their own files in `home`. Of ours they get nothing else: no
        tokens, no keys."""
        ours = _known(os.environ)
        path = f"{self.folder.absolute() / 'bin'}:{os.environ.get('PATH', os.defpath)}"
        return ours | QUIET | {
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "FLWR_HOME": str(home.absolute()),
            **more,
        }  # fmt: skip


def _known(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in PASSED_ON if name in environment}
