"""Adapters under a prefix of a bucket; credentials and endpoint come from AWS_*."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from services.cli.sending import Advance
from services.cli.sources.layout import adapter_folder
from services.cli.upload import CONFIG, WEIGHTS
from services.core.errors import FailedPrecondition, ResourceExhausted

RANGE_BYTES = 8 * 1024 * 1024


def fetch(url: str, to: Path, *, subfolder: str, most_bytes: int, advance: Advance) -> None:
    """Writes adapter_config.json and adapter_model.safetensors into the folder `to`.

    Raises NotFound, FailedPrecondition or, for more than `most_bytes`, ResourceExhausted.
    """
    try:
        store = from_url(url.rstrip("/") + (f"/{subfolder}" if subfolder else ""))
        found = {entry["path"]: entry for entry in obstore.list_with_delimiter(store)["objects"]}
        adapter_folder({PurePosixPath(path) for path in found}, url)
        total = sum(found[name]["size"] for name in (CONFIG, WEIGHTS))
        if total > most_bytes:
            raise ResourceExhausted(f"{url} has {total} bytes; --max-bytes allows more")
        done = 0
        for name in (CONFIG, WEIGHTS):
            _fetch(store, found[name], to / name, lambda sent, at=done: advance(at + sent, total))
            done += found[name]["size"]
    except (BaseError, FileNotFoundError, PermissionError, ValueError) as error:
        raise FailedPrecondition(f"{url}: {str(error).splitlines()[0]}") from error


def _fetch(store: ObjectStore, entry: Mapping[str, Any], to: Path, advance: Any) -> None:
    """Range by range, all of the object that was listed."""
    with to.open("xb") as file:
        for start in range(0, entry["size"], RANGE_BYTES):
            end = min(start + RANGE_BYTES, entry["size"])
            got = obstore.get(
                store,
                entry["path"],
                options={"range": (start, end), "if_match": entry["e_tag"]},
            )
            file.write(got.bytes())
            advance(end)
