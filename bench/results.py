"""Results as JSON: the figures, and the machine, commit and command that gave them.

python -m bench.results writes the tables of bench/README.md from them.
"""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "results"
PLOTS = FOLDER.parent / "plots"  # of results, by python -m bench.plots
NOT_SHOWN = ("series", "window")  # in tables


def machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def save(name: str, figures: dict[str, Any]) -> Path:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(origin() | figures, indent=1) + "\n")
    return path


def origin() -> dict[str, Any]:
    """When, where and by what."""
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "command": " ".join(["python -m", _module(), *map(_without_folders, sys.argv[1:])]),
        "machine": machine(),
    }


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else Path(sys.argv[0]).stem


def _without_folders(argument: str) -> str:
    """Where things lie on one machine is of no use on another."""
    return Path(argument).name if argument.startswith("/") else argument


def _commit() -> str:
    """Marked when the tree has changes that no commit holds, results apart."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/bench/results")
    return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, cwd=FOLDER.parent
    )
    return done.stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


_WITHOUT_A_GPU = (
    ()
    if (FOLDER / "gpu.json").exists()
    else (
        "",
        "No GPU was at hand yet: the Triton kernels agree with their references under Triton's",
        "interpreter, and their speed is unknown, not assumed. `python -m bench.gpu` measures it.",
    )
)


def render() -> str:
    """bench/README.md."""
    lines = [
        "# What was measured",
        "",
        "Tables made by `python -m bench.results` from `bench/results/*.json`. Machines are shared",
        "and noisy: compare ratios within one run. `python -m bench.<name> --help` says what each",
        "measures; `python -m bench.plots` draws those of `bench.fairness`,",
        "`python -m bench.gpu_plot` those of `bench.gpu`, and `python -m bench.experiments.plots`",
        "those of `bench.experiments.federated`.",
        *_WITHOUT_A_GPU,
    ]
    for path in sorted(FOLDER.glob("*.json")):
        found = json.loads(path.read_text())
        machine_ = found["machine"]
        lines += [
            "",
            f"## {path.stem}",
            "",
            f"`{found['command']}` at {found['commit']}, {found['measured'][:10]}, "
            f"{machine_['cores']} cores of {machine_['processor']}, torch {machine_['torch']}",
        ]
        for name, rows in found.items():
            if isinstance(rows, list) and name not in NOT_SHOWN:
                lines += ["", *_table(rows)]
        for plot in sorted(PLOTS.glob(f"{path.stem}_*.svg")):
            lines += ["", f"![{plot.stem.replace('_', ' ')}]({PLOTS.name}/{plot.name})"]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    names = list(rows[0])
    return [
        f"| {' | '.join(name.replace('_', ' ') for name in names)} |",
        f"|{' --- |' * len(names)}",
        *(f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in rows),
    ]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


if __name__ == "__main__":
    (FOLDER.parent / "README.md").write_text(render())
