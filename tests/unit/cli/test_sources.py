"""Adapters in folders and archives, the usual ones and those made to do harm."""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from services.adapter_store.uploads import StoreLimits
from services.cli.sources import layout
from services.cli.sources.opening import MOST_BYTES, Where, opened
from services.core.errors import ServingError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = {CONFIG: b'{"r": 4}', WEIGHTS: os.urandom(70_000)}


def no_base() -> NoReturn:
    raise AssertionError("only GGUF needs a base model")


def read(source: Path, **where: object) -> tuple[str, dict[str, bytes]]:
    """The name and the two files; nothing else may be there if they were unpacked."""
    with opened(str(source), Where(**where), no_base) as adapter:  # type: ignore[arg-type]
        if not adapter.folder.is_relative_to(source.resolve()):
            assert {entry.name for entry in adapter.folder.iterdir()} == FILES.keys()
        found = {name: (adapter.folder / name).read_bytes() for name in FILES}
    assert adapter.folder.exists() == adapter.folder.is_relative_to(source.resolve())
    return adapter.name, found


def refused(source: Path, **where: object) -> str:
    with pytest.raises(ServingError) as error:
        read(source, **where)
    assert "\n" not in error.value.message
    return error.value.message


def fill(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def hub_cache(folder: Path, commits: Mapping[str, Mapping[str, bytes]]) -> Path:
    """As huggingface_hub lays it out; the first commit is main."""
    cache = folder / "models--Org--SQL-Lora"
    for commit, files in commits.items():
        for name, data in files.items():
            blob = cache / "blobs" / f"{commit}-{name.replace('/', '-')}"
            fill(blob.parent, {blob.name: data})
            link = cache / "snapshots" / commit / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    fill(cache, {"refs/main": next(iter(commits)).encode()})
    return cache


def test_the_limit_is_the_stores() -> None:
    assert StoreLimits().max_adapter_bytes == MOST_BYTES


def test_a_plain_folder_stays_where_it_is(tmp_path: Path) -> None:
    assert read(fill(tmp_path / "mine")) == ("mine", FILES)


def test_the_only_adapter_of_a_repository_is_found(tmp_path: Path) -> None:
    fill(tmp_path / "repo", {"README.md": b"", ".git/adapter_config.json": b""})
    fill(tmp_path / "repo" / "out" / "final")
    assert read(tmp_path / "repo") == ("repo", FILES)
    other = {**FILES, CONFIG: b'{"r": 8}'}
    fill(tmp_path / "repo" / "second", other)
    said = refused(tmp_path / "repo")
    assert "(out/final, second): say --subfolder" in said
    assert read(tmp_path / "repo", subfolder="second")[1] == other
    fill(tmp_path / "repo", {**FILES, CONFIG: b"top"})
    assert read(tmp_path / "repo")[1][CONFIG] == b"top"


def test_the_hubs_cache_is_read_by_revision(tmp_path: Path) -> None:
    old = {**FILES, CONFIG: b"old"}
    cache = hub_cache(tmp_path, {"aaaa": FILES, "bbbb": {f"lora/{n}": d for n, d in old.items()}})
    assert read(cache) == ("SQL-Lora", FILES)
    assert read(cache, revision="bbbb") == ("SQL-Lora", old)
    assert read(cache / "snapshots" / "bbbb") == ("SQL-Lora", old)
    fill(cache, {"refs/pr/1": b"bbbb\n"})
    assert read(cache, revision="pr/1")[1] == old
    assert "no snapshot of v2; it has aaaa, bbbb" in refused(cache, revision="v2")
    (cache / "refs" / "main").write_bytes(b"../../..")
    assert "no snapshot of main" in refused(cache)
    assert "is no cache of a repository" in refused(fill(tmp_path / "plain"), revision="main")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_no_link_leads_outside(name: str, tmp_path: Path) -> None:
    secret = fill(tmp_path, {"secret": b"top"}) / "secret"
    folder = fill(tmp_path / "folder")
    cache = hub_cache(tmp_path, {"aaaa": FILES})
    for holder in (folder, cache / "snapshots" / "aaaa"):
        (holder / name).unlink()
        (holder / name).symlink_to(secret)
    assert f"{name} leads outside of {folder}" in refused(folder)
    assert f"{name} leads outside of {cache}" in refused(cache)
    assert f"{name} leads outside" in refused(cache / "snapshots" / "aaaa")
    fill(tmp_path / "beside")
    assert "has no adapter_config.json" in refused(folder, subfolder="../beside")
    (folder / name).unlink()
    (folder / name).symlink_to("nothing")
    assert "a link to none" in refused(folder)


def test_what_is_missing_is_said_with_a_hint(tmp_path: Path) -> None:
    assert f"has no {CONFIG} and no {WEIGHTS}" in refused(fill(tmp_path / "empty", {"x": b""}))
    pickled = fill(tmp_path / "old", {CONFIG: b"{}", "adapter_model.bin": b"\x80\x02"})
    said = refused(pickled)
    assert f"has no {WEIGHTS} (adapter_model.bin is a pickle, never opened here" in said
    assert "adapter_model.bin is a pickle" in refused(pickled / "adapter_model.bin")
    assert "(import a.gguf itself)" in refused(fill(tmp_path / "gguf", {"a.gguf": b"GGUF"}))
    assert "there is no" in refused(tmp_path / "nowhere")
    assert "is none of" in refused(fill(tmp_path, {"text": b"hello"}) / "text")


Squeeze = Callable[[bytes], bytes]


def zipped(path: Path, files: Mapping[str, bytes], **how: int) -> Path:
    with zipfile.ZipFile(path, "w", **how) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: Mapping[str, bytes], squeeze: Squeeze = bytes) -> Path:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path.write_bytes(squeeze(whole.getvalue()))
    return path


Pack = Callable[[Path, Mapping[str, bytes]], Path]
PACKS: dict[str, Pack] = {
    "a.zip": lambda path, files: zipped(path, files, compression=zipfile.ZIP_DEFLATED),
    "stored.zip": zipped,
    "lzma.zip": lambda path, files: zipped(path, files, compression=zipfile.ZIP_LZMA),
    "a.tar": tarred,
    "a.tar.gz": lambda path, files: tarred(path, files, gzip.compress),
    "a.tar.bz2": lambda path, files: tarred(path, files, bz2.compress),
    "a.tar.xz": lambda path, files: tarred(path, files, lzma.compress),
}
EACH_PACK = pytest.mark.parametrize("kind", PACKS)


@EACH_PACK
def test_two_files_come_out_of_an_archive(kind: str, tmp_path: Path) -> None:
    others = {"run/optimizer.pt": os.urandom(500_000), "inner.zip": b"PK\x03\x04", "../up": b"up"}
    packed = {f"run/./{name}": data for name, data in FILES.items()}
    path = PACKS[kind](tmp_path / "disguised.txt", others | packed)
    assert read(path) == ("disguised", FILES)
    assert not (tmp_path / "up").exists()
    named = path.rename(tmp_path / kind)
    assert read(named)[0] == kind.partition(".")[0]
    second = {f"b/{name}": data for name, data in FILES.items()}
    path = PACKS[kind](tmp_path / "two", packed | second)
    assert "several adapters (b, run): say --subfolder" in refused(path)
    assert read(path, subfolder="b")[1] == FILES


@EACH_PACK
def test_a_damaged_archive_is_one_sentence(kind: str, tmp_path: Path) -> None:
    whole = PACKS[kind](tmp_path / kind, FILES).read_bytes()
    path = tmp_path / "damaged"
    for keep in (5, 300, len(whole) // 2, len(whole) - 12_000):
        path.write_bytes(whole[:keep])
        said = refused(path)
        assert "is not a good archive" in said or "is none of" in said, (keep, said)
    if kind != "a.tar":  # which has no checksum of its contents
        spoilt = bytearray(whole)
        spoilt[len(whole) // 2] ^= 255
        path.write_bytes(spoilt)
        assert "is not a good archive" in refused(path)
        path.write_bytes(whole[:400] + whole[30_000:])
        assert "is not a good archive" in refused(path)


@EACH_PACK
@pytest.mark.parametrize("where", ["../", "/", "a/../../", "..\\"])
def test_nothing_leads_outside_of_an_archive(kind: str, where: str, tmp_path: Path) -> None:
    path = PACKS[kind](tmp_path / kind, {f"{where}{name}": b"" for name in FILES})
    said = refused(path)
    assert f"{CONFIG} leads outside of the archive" in said
    assert f"{WEIGHTS} leads outside of the archive" in said


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_a_tar_with_anything_but_files_is_refused(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in FILES:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert f"{CONFIG} is a link, or no plain file; {WEIGHTS} is a link" in refused(path)


def test_a_zip_with_a_link_or_a_name_twice_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo(WEIGHTS)
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link", "w") as archive:
        archive.writestr(CONFIG, b"{}")
        archive.writestr(info, "/etc/passwd")
    assert f"{WEIGHTS} is a link" in refused(tmp_path / "link")
    with zipfile.ZipFile(tmp_path / "twice", "w") as archive:
        for name in (CONFIG, WEIGHTS):
            archive.writestr(name, b"{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(CONFIG, b"{}")
    assert f"{CONFIG} is there twice" in refused(tmp_path / "twice")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "a.zip", FILES).read_bytes())
    for at in range(len(data) - 4):
        if bytes(data[at : at + 4]) in (b"PK\x03\x04", b"PK\x01\x02"):
            data[at + (6 if data[at + 2] == 3 else 8)] |= 1
    (tmp_path / "locked").write_bytes(data)
    assert "encrypted" in refused(tmp_path / "locked")


@EACH_PACK
def test_more_than_the_limit_is_not_unpacked(kind: str, tmp_path: Path) -> None:
    path = PACKS[kind](tmp_path / kind, FILES | {WEIGHTS: bytes(3_000_000)})
    assert "unpacks to more than 2000000 bytes; --max-bytes" in refused(path, most_bytes=2_000_000)
    with opened(str(path), Where(most_bytes=3_100_000), no_base) as adapter:
        assert (adapter.folder / WEIGHTS).read_bytes() == bytes(3_000_000)


@pytest.mark.parametrize("squeeze", [gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_bomb_is_not_unpacked_even_to_pass_over_it(squeeze: Squeeze, tmp_path: Path) -> None:
    """What precedes the two files counts, too: it has to be unpacked to reach them."""
    path = tarred(tmp_path / "bomb", {"bomb": bytes(8_000_000)} | FILES, squeeze)
    assert path.stat().st_size < 120_000
    assert "unpacks to more than" in refused(path, most_bytes=1_000_000)


def test_a_zip_that_understates_is_refused(tmp_path: Path) -> None:
    """The size in the directory is a lie; the content goes on."""
    files = FILES | {WEIGHTS: bytes(5_000_000)}
    data = zipped(tmp_path / "a.zip", files, compression=zipfile.ZIP_DEFLATED).read_bytes()
    lies = data.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 1000))
    path = fill(tmp_path, {"lies": lies}) / "lies"
    assert "is not a good archive" in refused(path, most_bytes=1_000_000)


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    many = {f"f{number}": b"" for number in range(layout.MOST_ENTRIES)} | FILES
    assert "more than 10000 entries" in refused(zipped(tmp_path / "a.zip", many))
    assert "more than 10000 entries" in refused(tarred(tmp_path / "a.tar", many))
    longer = {f"{number:0200}": b"" for number in range(9_000)} | FILES
    assert "description of its entries is too long" in refused(zipped(tmp_path / "b.zip", longer))
    with tarfile.open(tmp_path / "b.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(CONFIG)
        info.pax_headers = {"comment": "x" * 3_000_000}
        archive.addfile(info)
    assert "description of its entries is too long" in refused(tmp_path / "b.tar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.cli.sources.folders.MOST_ENTRIES", 3)
        assert "more than 3 files" in refused(fill(tmp_path / "f", {str(n): b"" for n in range(4)}))
