"""Adapters come from anywhere and go as PEFT folders, through the command line and a real suite."""

import json
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from services.cli import export, sending
from services.cli.app import app
from services.cli.content import Content
from services.cli.download import download_version
from services.cli.sending import Sender
from tests.buckets import bucket
from tests.contract.test_gguf import NAMES
from tests.contract.test_gguf_adapters import write
from tests.integration.conftest import BASE, SMOLLM, Running, bearer, parsed, smollm_modules
from tests.peft_folders import Tensors, peft_config, peft_tensors, write_peft

KEEPER = "keeper"
FILES = ("adapter_config.json", "adapter_model.safetensors")
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def keeper(running: Running) -> str:
    running.add_tenant(KEEPER)
    return KEEPER


@pytest.fixture
def run(running: Running, keeper: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("LORIKEET_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("LORIKEET_SERVER", running.suite.addresses.gateway)
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: str, tenant: str = KEEPER) -> Result:
        environment = {"LORIKEET_KEY": running.keys[tenant]}
        return CliRunner().invoke(app, ["adapters", *arguments], env=environment)

    return run


def version(result: Result) -> Any:
    return parsed(result)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every type that is taken, each from another module."""
    kinds = {"q": torch.float32, "k": torch.float16, "v": torch.bfloat16}
    tensors = {
        name: tensor.to(kinds[name.split("_proj")[0][-1]])
        for name, tensor in smollm_tensors(["q_proj", "k_proj", "v_proj"]).items()
    }
    config = json.dumps(peft_config(target_modules=["q_proj", "k_proj", "v_proj"]), indent=3)
    return write_peft(tmp_path / "original", f"{config}\n ", tensors)


def smollm_tensors(names: list[str]) -> Tensors:
    return peft_tensors(smollm_modules(), names=names, rank=4, seed=11)


def test_an_export_is_what_was_uploaded(run: Run, folder: Path, tmp_path: Path) -> None:
    first = version(run("upload", str(folder), "--name", "round", "-o", "json"))
    made = tmp_path / "deep" / "made"
    said = run("export", "round", str(made))
    assert said.exit_code == 0, said.output
    assert f"round is in {made}" in said.stdout
    assert sorted(entry.name for entry in made.iterdir()) == sorted(FILES)
    assert [entry.name for entry in made.parent.iterdir()] == ["made"]
    assert (made / FILES[0]).read_bytes() == (folder / FILES[0]).read_bytes()
    original, found = load_file(folder / FILES[1]), load_file(made / FILES[1])
    assert found.keys() == original.keys()
    for name, tensor in original.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    again = version(run("upload", str(made), "--name", "round", "-o", "json"))
    assert (again["number"], again["digest"]) == (1, first["digest"])
    occupied = run("export", "round", str(made))
    assert occupied.exit_code == 1
    assert f"{made} is not empty" in occupied.output
    assert f"{made / FILES[0]} is there and is no folder" in run(
        "export", "round", str(made / FILES[0])
    ).output  # fmt: skip
    (tmp_path / "bare").mkdir()
    assert run("export", f"round@{first['digest'][:12]}", str(tmp_path / "bare")).exit_code == 0
    assert (tmp_path / "bare" / FILES[1]).read_bytes() == (made / FILES[1]).read_bytes()


def test_only_the_owner_may_export(run: Run, folder: Path, tmp_path: Path) -> None:
    run("upload", str(folder), "--name", "lent")
    assert "does not exist" in run("export", f"{KEEPER}/lent", "x", tenant="umbrella").output
    assert run("share", "lent", "umbrella").exit_code == 0
    to = tmp_path / "to" / "stolen"
    result = run("export", f"{KEEPER}/lent", str(to), tenant="umbrella")
    assert result.exit_code == 4
    assert "keeper/lent is shared to be used, not to be copied: only keeper may" in result.output
    assert not list(to.parent.iterdir())
    assert run("export", f"{KEEPER}/lent", str(to)).exit_code == 0


def test_an_export_goes_on_where_it_stopped(
    running: Running, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C during the download, then the same command: only the rest is asked for."""
    run("upload", str(folder), "--name", "stopped")
    to = tmp_path / "to" / "made"

    def interrupted(*arguments: Any, **named: Any) -> None:
        def stop(done: int, total: int) -> None:
            signal.raise_signal(signal.SIGINT)

        download_version(*arguments, **named | {"advance": stop})

    with monkeypatch.context() as patch:
        patch.setattr(export, "download_version", interrupted)
        assert run("export", "stopped", str(to)).exit_code != 0
    (part,) = to.parent.iterdir()
    begun = part.stat().st_size
    assert begun > 0
    assert part.name.startswith(".made.")
    part.write_bytes(part.read_bytes()[:1000])
    offsets = []
    downloads = rpc.AdapterStoreServiceStub

    def counted(channel: Any) -> Any:
        stub = downloads(channel)
        download = stub.Download

        def noted(request: pb.DownloadRequest, **named: Any) -> Any:
            offsets.append(request.offset)
            return download(request, **named)

        stub.Download = noted
        return stub

    monkeypatch.setattr(rpc, "AdapterStoreServiceStub", counted)
    assert run("export", "stopped", str(to)).exit_code == 0
    assert offsets == [1000]
    assert [entry.name for entry in to.parent.iterdir()] == ["made"]


def test_a_failed_conversion_leaves_nothing(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run("upload", str(folder), "--name", "full")

    def full(path: Path, tensors: Any) -> None:
        path.write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_tensors", full)
    result = run("export", "full", str(tmp_path / "to" / "made"))
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert not list((tmp_path / "to").iterdir())


def packed(path: Path, folder: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "run/checkpoint-9")
    return path


def test_an_archive_becomes_a_version_like_any_other(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    plain = version(run("upload", str(folder), "--name", "packed", "-o", "json"))
    facts = ["--label", "team=search", "--metric", "f1=0.5", "--licence", "MIT", "--job", "j1"]
    facts += ["--parent", plain["digest"]]
    source = packed(tmp_path / "Sql.tar.gz", folder)
    made = version(run("import", str(source), *facts, "-o", "json"))
    assert (made["adapter"], made["digest"]) == ("sql", plain["digest"])
    assert made["provenance"].pop("created_by").startswith(f"{KEEPER}/")
    assert made["provenance"] == {
        "job": "j1",
        "licence": "MIT",
        "labels": {"team": "search"},
        "metrics": {"f1": 0.5},
        "parents": [plain["digest"]],
    }
    assert run("import", str(source), "--label", "bad").exit_code == 2
    source.write_bytes(source.read_bytes()[:-100])
    result = run("import", str(source))
    assert result.exit_code == 1
    assert "Sql.tar.gz is not a good archive" in result.output


def test_an_interrupted_import_finds_its_upload_again(
    running: Running, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = packed(tmp_path / "again.tar.gz", folder)
    starts, put = [], Sender._put

    def cut(sender: Sender, content: Content, piece: pb.StagePiece, total: int) -> None:
        starts.append((piece.url.partition("/uploads/")[2][:32], piece.offset))
        if len(starts) == 1:
            sender._advance = lambda sent, total: signal.raise_signal(signal.SIGINT)
        put(sender, content, piece, total)

    monkeypatch.setattr(sending, "STEP_BYTES", 5000)
    monkeypatch.setattr(Sender, "_put", cut)
    stub = rpc.AdapterStoreServiceStub(running.channel)
    assert run("import", str(source)).exit_code != 0
    deadline = time.monotonic() + 10
    request = pb.GetUploadRequest(upload_id=starts[0][0])
    who = bearer(running.keys[KEEPER])
    while stub.GetUpload(request, metadata=who).upload.committed_bytes != 5000:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert run("import", str(source)).exit_code == 0
    assert starts[1] == (starts[0][0], 5000)


def test_a_repository_and_a_bucket(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = version(run("upload", str(folder), "--name", "plain", "-o", "json"))
    snapshot = tmp_path / "models--org--Tool-Use" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    for name in FILES:
        blob = tmp_path / "models--org--Tool-Use" / "blobs" / name
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes((folder / name).read_bytes())
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    made = version(run("import", str(tmp_path / "models--org--Tool-Use"), "-o", "json"))
    assert (made["adapter"], made["digest"]) == ("tool-use", plain["digest"])
    with bucket("models", monkeypatch) as client:
        for name in FILES:
            data = (folder / name).read_bytes()
            client.put_object(Bucket="models", Key=f"team/tools/{name}", Body=data)
        made = version(run("import", "s3://models/team/tools", "-o", "json"))
    assert (made["adapter"], made["digest"]) == ("tools", plain["digest"])


def as_gguf(path: Path, tensors: Tensors, alpha: float) -> Path:
    """As llama.cpp converts SmolLM2's: 9 heads of queries, 3 of keys."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, tensor in tensors.items():
        path_, side = name.removeprefix("base_model.model.model.layers.").split(".lora_")
        layer, _, module = path_.partition(".")
        values = tensor.numpy()
        heads = {"self_attn.q_proj": SMOLLM.heads, "self_attn.k_proj": SMOLLM.kv_heads}.get(module)
        if heads and side.startswith("B"):
            halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
            values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
        writer.add_tensor(f"blk.{layer}.{NAMES[module]}.weight.lora_{side[0].lower()}", values)
    write(writer)
    return path


def test_gguf_becomes_the_adapter_it_was(run: Run, tmp_path: Path) -> None:
    names = ["k_proj", "q_proj", "up_proj"]
    tensors = smollm_tensors(names)
    original = write_peft(tmp_path / "peft", peft_config(target_modules=names), tensors)
    plain = version(run("upload", str(original), "--name", "peft", "-o", "json"))
    source = as_gguf(tmp_path / "adapter.gguf", tensors, 8)
    unnamed = run("import", str(source))
    assert unnamed.exit_code == 1
    assert "name it by --base" in unnamed.output
    assert f"{BASE} is" in " ".join(run("import", str(source), "--base", "gpt-5").output.split())
    made = version(run("import", str(source), "--base", BASE, "-o", "json"))
    assert (made["adapter"], made["digest"]) == ("adapter", plain["digest"])


def test_help_says_what_is_taken(run: Run) -> None:
    for command in ("import", "export"):
        assert "Usage" in run(command, "--help").output
    assert "s3://BUCKET/PREFIX" in run("import", "--help").output
