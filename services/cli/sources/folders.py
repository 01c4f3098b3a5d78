"""Adapters in folders: PEFT's own, snapshots of a repository, the cache of Hugging Face's hub."""

import os
from pathlib import Path, PurePosixPath

from services.cli.sources.layout import MOST_ENTRIES, Adapter, adapter_folder
from services.cli.upload import CONFIG, WEIGHTS
from services.core.errors import FailedPrecondition, InvalidRequest, NotFound, ResourceExhausted


def find_adapter(source: Path, *, subfolder: str, revision: str) -> Adapter:
    """Links may lead anywhere within the folder, or within the hub's cache of the repository.

    Raises NotFound, InvalidRequest, FailedPrecondition or ResourceExhausted.
    """
    top = source.resolve()
    cache = next((folder for folder in (top, *top.parents) if _is_cache(folder)), None)
    if cache is None or top != cache:
        if revision:
            raise InvalidRequest.of("revision", f"{source} is no cache of a repository")
        snapshot = top
    else:
        snapshot = _snapshot(cache, revision)
    folder = snapshot / adapter_folder(_files(snapshot), str(source), subfolder)
    for name in (CONFIG, WEIGHTS):
        _check_inside(folder / name, cache or top)
    return Adapter(folder, cache.name.rpartition("--")[2] if cache else top.name)


def _is_cache(folder: Path) -> bool:
    return folder.name.startswith("models--") and (folder / "snapshots").is_dir()


def _snapshot(cache: Path, revision: str) -> Path:
    """A commit, what a branch or tag points at, "main", or the only one there is."""
    snapshots = cache / "snapshots"
    known = sorted(entry.name for entry in snapshots.iterdir() if entry.is_dir())
    ref = cache / "refs" / (revision or "main")
    if revision in known:
        commit = revision
    elif ref.is_file() and ref.resolve().is_relative_to(cache):
        commit = ref.read_text(errors="replace").strip()
    else:
        commit = known[0] if len(known) == 1 and not revision else ""
    if commit not in known:
        raise NotFound(
            f"{cache.name} has no snapshot of {revision or 'main'}; "
            f"it has {', '.join(known[:10]) or 'none'}"
        )
    return snapshots / commit


def _files(folder: Path) -> set[PurePosixPath]:
    found: set[PurePosixPath] = set()
    seen = 0
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen += len(folders) + len(names)
        if seen > MOST_ENTRIES:
            raise ResourceExhausted(f"{folder} holds more than {MOST_ENTRIES} files: go deeper")
        found.update(PurePosixPath(Path(where, name).relative_to(folder)) for name in names)
    return found


def _check_inside(path: Path, within: Path) -> None:
    if not path.resolve().is_relative_to(within):
        raise FailedPrecondition(f"{path} leads outside of {within}")
    if not path.is_file():
        raise FailedPrecondition(f"{path} is no file, or a link to none")
