"""The C beside this file, as a module."""

import logging
import sysconfig
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Protocol, cast

from services.core.native import compiled
from services.core.types import RequestId
from services.policies.migration.loads import PlannedMove, WorkerLoad

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
NAME = "lorikeet_migration"
# Sums are to be the reference's to the last bit: no fused operations.
FLAGS = ("-O3", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden")


class Native(Protocol):
    def play(
        self,
        loads: Sequence[WorkerLoad],
        frozen: frozenset[RequestId],
        owed: Mapping[RequestId, float],
        weight: float,
        most_moves: int,
    ) -> tuple[list[PlannedMove], float, float] | None:
        """See `Greedy`. None: of what is odd, which is left to the reference."""


@cache
def module() -> Native | None:
    """None where it cannot be compiled or loaded: the reference then does the work, slowly."""
    flags = (*FLAGS, f"-I{sysconfig.get_path('include')}")
    try:
        path = compiled("migration", FOLDER, flags, str(sysconfig.get_config_var("SOABI")))
        spec = spec_from_file_location(NAME, path, loader=ExtensionFileLoader(NAME, str(path)))
        assert spec is not None
        assert spec.loader is not None
        found = module_from_spec(spec)
        spec.loader.exec_module(found)
    except (OSError, ImportError) as error:
        log.warning("greedy moves are not planned in C: %s", error)
        return None
    return cast(Native, found)
