"""What the system says of a process: files, threads, memory."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holding:
    files: int
    threads: int
    mebibytes: int  # resident


def holding(pid: int) -> Holding:
    """Raises OSError when it is gone."""
    process = Path("/proc") / str(pid)
    fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Holding(
        files=len(list((process / "fd").iterdir())),
        threads=int(fields["Threads"]),
        mebibytes=round(int(fields["VmRSS"].split()[0]) / 1024),
    )


def open_files(pid: int) -> list[str]:
    """What they are, for whoever looks for the one too many."""
    links = (Path("/proc") / str(pid) / "fd").iterdir()
    return sorted(str(link.readlink()) for link in links)
