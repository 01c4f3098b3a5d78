"""A model's files on disk, and the fingerprint that workers and trainers know it by."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from services.core.errors import FailedPrecondition
from services.core.types import Fingerprint


def found_model(path: Path) -> Path:
    """A folder with a config.json, or a GGUF file: the only one of the folder that is given.

    Raises FailedPrecondition.
    """
    if path.is_dir() and not (path / "config.json").exists():
        found = sorted(path.glob("*.gguf"))
        if len(found) != 1:
            raise FailedPrecondition(f"{path} holds neither a config.json nor one .gguf file")
        path = found[0]
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return path
    raise FailedPrecondition(f"{path} is neither a model folder nor a .gguf file")


def files_of(model: Path) -> list[Path]:
    """Of what found_model found: those that decide what it computes. Raises FailedPrecondition."""
    if model.is_file():
        return [model]
    tokenizer = model / "tokenizer.json"
    if not tokenizer.exists():
        raise FailedPrecondition(f"{model} has no tokenizer.json")
    return [model / "config.json", tokenizer, *shards_of(model)]


def shards_of(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        shards = [folder / Path(shard).name for shard in names]
    else:
        shards = [folder / "model.safetensors"]
    missing = [shard.name for shard in shards if not shard.exists()]
    if missing:
        raise FailedPrecondition(f"{folder} has no {', '.join(missing)}")
    return shards


def fingerprint_of(files: Iterable[Path]) -> Fingerprint:
    whole = hashlib.sha256()
    for path in sorted(files, key=lambda file: file.name):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.name} {digest}\n".encode())
    return Fingerprint(whole.hexdigest())


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.exists():
        return {}
    try:
        read: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{path} cannot be read: {error}") from error
    return read
