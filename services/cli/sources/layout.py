"""Which of many files are an adapter's two."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from services.cli.upload import CONFIG, WEIGHTS
from services.core.errors import FailedPrecondition, NotFound

MOST_ENTRIES = 10_000

_PICKLES = (".bin", ".pt", ".pth", ".pkl")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A PEFT folder to upload; `name` is what to call it, `notes` what its maker should know."""

    folder: Path
    name: str
    notes: tuple[str, ...] = ()


def adapter_folder(
    files: Collection[PurePosixPath], source: str, subfolder: str = ""
) -> PurePosixPath:
    """The folder that holds both files: the one asked for, the top, or the only one.

    Raises NotFound, or FailedPrecondition if several could be meant.
    """
    holders = sorted({path.parent for path in files if path.name == CONFIG})
    top = PurePosixPath()
    if subfolder:
        folder = PurePosixPath(subfolder)
    elif top in holders or not holders:
        folder = top
    elif len(holders) == 1:
        folder = holders[0]
    else:
        listed = ", ".join(map(str, holders[:10])) + (", ..." if len(holders) > 10 else "")
        raise FailedPrecondition(f"{source} holds several adapters ({listed}): say --subfolder")
    missing = [name for name in (CONFIG, WEIGHTS) if folder / name not in files]
    if missing:
        where = source if folder == top else f"{folder} in {source}"
        beside = [path for path in files if path.parent == folder]
        raise NotFound(f"{where} has no {' and no '.join(missing)}{hint(beside)}")
    return folder


def hint(files: Iterable[PurePath]) -> str:
    """What else is there that its maker may have taken for an adapter."""
    names = sorted(path.name for path in files)
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        return f" ({', '.join(pickles)} is a pickle, never opened here: save it as safetensors)"
    converted = [name for name in names if name.endswith(".gguf")]
    return f" (import {', '.join(converted)} itself)" if converted else ""
