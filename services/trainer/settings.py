"""TRAINER_* settings."""

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from services.runtime.settings import ServiceSettings
from services.trainer.runner import Pace


class TrainerSettings(ServiceSettings, env_prefix="TRAINER_"):
    address: str = "127.0.0.1:7415"
    metrics_address: str = ""
    """host:port of Prometheus metrics. Empty: nowhere."""
    database_url: str
    """SQLAlchemy URL, for instance sqlite+aiosqlite:////var/lib/lorikeet/lorikeet.db."""
    store_address: str = "127.0.0.1:7412"
    folder: Path
    """Data sets and checkpoints. Several trainers on one database need the same folder."""
    model_paths: tuple[Path, ...]
    """Base models to train on, a JSON list: Hugging Face folders or GGUF files, the very ones that
    workers serve."""
    jobs_at_once: PositiveInt = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA if torch finds it."""
    threads: NonNegativeInt = 0
    """CPU threads of a job; 0 means one for each processor. A job goes on bit for bit only with as
    many."""
    most_data_mebibytes: PositiveInt = 1024
    """Of one data set."""
    most_unfinished_jobs: PositiveInt = 16
    """Of one tenant."""
    superlink_address: str = "127.0.0.1:7417"
    """host:port where the SuperNodes of federated jobs dial in, one job at a time. Unless the host
    is a loopback address, every interface listens."""
    flower_folder: Path | None = None
    """Flower's own environment. Empty: .venv-flower beside the code, which `make flower` makes."""
    data_kept_days: PositiveFloat = 30.0
    """How long data is kept that no job is to learn from, after the last one was made."""
    pace: Pace = Pace()
    """How soon trainers, processes and the store are given up, or tried again."""
