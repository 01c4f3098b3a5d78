"""Any source of an adapter as a PEFT folder; what kind it is, its content says."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from services.cli.sending import Advance
from services.cli.sources import archives, folders, s3
from services.cli.sources.layout import Adapter, hint
from services.core.base_model import BaseModel
from services.core.errors import FailedPrecondition, NotFound

MOST_BYTES = 4 * 1024**3  # as a store takes by default


@dataclass(frozen=True, slots=True)
class Where:
    """Which adapter of a source, and the most bytes to unpack or fetch."""

    subfolder: str = ""
    revision: str = ""
    most_bytes: int = MOST_BYTES


@contextmanager
def opened(
    source: str,
    where: Where,
    base: Callable[[], BaseModel],
    advance: Advance = lambda done, total: None,
) -> Iterator[Adapter]:
    """What had to be unpacked, fetched or converted is gone afterwards.

    `base` is only asked for GGUF. Raises ServingError or OSError.
    """
    if not source.startswith("s3://") and Path(source).is_dir():
        yield folders.find_adapter(Path(source), subfolder=where.subfolder, revision=where.revision)
        return
    with tempfile.TemporaryDirectory(prefix="lorikeet-") as scratch:
        to = Path(scratch)
        if source.startswith("s3://"):
            s3.fetch(
                source,
                to,
                subfolder=where.subfolder,
                most_bytes=where.most_bytes,
                advance=advance,
            )
            yield Adapter(to, (where.subfolder or source).rstrip("/").rpartition("/")[2])
        else:
            yield _from_file(Path(source), to, where, base, advance)


def _from_file(
    source: Path, to: Path, where: Where, base: Callable[[], BaseModel], advance: Advance
) -> Adapter:
    if not source.is_file():
        raise NotFound(f"there is no {source}")
    from services.cli.sources import gguf  # noqa: PLC0415  # slow to load; few commands need it

    with source.open("rb") as file:
        head = file.read(512)
    if head.startswith(gguf.MAGIC):
        return Adapter(to, source.stem, gguf.convert(source, base(), to))
    if archives.is_archive(head):
        archives.extract(
            source,
            to,
            subfolder=where.subfolder,
            most_bytes=where.most_bytes,
            advance=advance,
        )
        stem = source.stem
        return Adapter(to, stem.removesuffix(".tar"))
    kinds = "a PEFT folder, a zip or tar archive, a LoRA in GGUF, s3://bucket/prefix"
    raise FailedPrecondition(f"{source.name} is none of: {kinds}{hint([PurePath(source)])}")
