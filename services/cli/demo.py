"""lorikeet up and lorikeet demo: the suite on this machine, with two adapters to talk to."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.columns import Columns
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lorikeet.gateway.v1 import gateway_service_pb2 as pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as rpc
from lorikeet.gateway.v1 import tenant_service_pb2, tenant_service_pb2_grpc
from lorikeet.types.v1.generation_pb2 import BatchFacts, SamplingParams
from services.cli.connection import CHANNEL_OPTIONS, Profile, home, read_profile, write_profile
from services.cli.show import console, one_sentence
from services.cli.suite import (
    Addresses,
    Suite,
    embedded_model,
    free_addresses,
    interruptible,
    only_one,
)
from services.cli.upload import upload_folder

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "adapters"
TENANT = "demo"
QUESTION = "How do I make a good cup of tea?"
DEFAULT_PORT = 7410
STEPS = 7  # what the progress bar counts

Port = Annotated[
    int, typer.Option(help="First of eight neighbouring ports; 0 takes any that are free.")
]
Model = Annotated[
    Path | None, typer.Option(help="A Hugging Face folder or GGUF file. Default: SmolLM2-135M.")
]
Memory = Annotated[
    int,
    typer.Option(
        min=0, help="MiB for keys, values and adapters together. Default: by what is free."
    ),
]


@dataclass(slots=True)
class _Answer:
    model: str
    text: str = ""
    batch: BatchFacts = field(default_factory=BatchFacts)
    error: grpc.RpcError | None = None


def up(port: Port = DEFAULT_PORT, model: Model = None, memory: Memory = 0) -> None:
    """Start the whole suite on this machine and leave it running until Ctrl-C."""
    with one_sentence(), running(port, model, memory, trains=True) as (suite, profile):
        _print_lines(profile)
        console.print("Running; Ctrl-C stops everything.")
        try:
            suite.watch()
        except KeyboardInterrupt:
            console.print("Stopping.")


def demo(port: Port = DEFAULT_PORT, model: Model = None, question: str = QUESTION) -> None:
    """Start the suite, ask one question of three models in one batch, stop everything."""
    if port and Addresses.at(port).taken():
        console.print(f"Port {port} or one after it is in use; taking free ones.")
        port = 0
    with one_sentence(), running(port, model) as (_, profile):
        answers = _ask_all(profile, question)
        failed = [answer.error for answer in answers if answer.error is not None]
        if failed:
            raise failed[0]
        most = max((answer.batch for answer in answers), key=lambda batch: batch.peak_adapters)
        console.print(
            f"\nLargest step: {most.peak_sequences} sequences with {most.peak_adapters} different "
            "weights (base and adapters) in one batch.\n"
        )
        _print_lines(profile)
    console.print(
        "Everything is stopped. `lorikeet up` starts the same suite and leaves it running."
    )


@contextmanager
def running(
    port: int, model: Path | None, memory: int = 0, *, trains: bool = False
) -> Iterator[tuple[Suite, Profile]]:
    addresses = Addresses.at(port) if port else free_addresses()
    if taken := addresses.taken():
        raise OSError(f"in use: {', '.join(taken)}; choose other ports with --port")
    suite = Suite(home(), addresses, model or embedded_model(), memory, trains)
    with interruptible(), only_one(suite.home):
        try:
            yield suite, _start(suite)
        finally:
            suite.stop()


def _start(suite: Suite) -> Profile:
    before = read_profile(suite.home)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:36}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("Starting", total=STEPS + len(_examples()))

        def step(description: str) -> None:
            bar.update(task, description=description, advance=1)

        profile = suite.start(step)
        step("Creating a tenant and a key")
        with grpc.insecure_channel(profile.server, options=CHANNEL_OPTIONS) as channel:
            key = before.key if _works(channel, before.key) else _new_key(channel, profile)
            profile = replace(profile, key=key)
            write_profile(suite.home, profile)
            for folder in _examples():
                step(f"Uploading {folder.name}")
                metadata = (("authorization", f"Bearer {key}"),)
                upload_folder(channel, metadata, folder, adapter=folder.name)
    return profile


def _examples() -> list[Path]:
    return sorted(path.parent for path in EXAMPLES.glob("*/adapter_config.json"))


def _works(channel: grpc.Channel, key: str) -> bool:
    if not key:
        return False
    try:
        metadata = (("authorization", f"Bearer {key}"),)
        rpc.GatewayServiceStub(channel).ListModels(pb.ListModelsRequest(), metadata=metadata)
    except grpc.RpcError:
        return False
    return True


def _new_key(channel: grpc.Channel, profile: Profile) -> str:
    stub = tenant_service_pb2_grpc.TenantServiceStub(channel)
    metadata = (("authorization", f"Bearer {profile.operator_token}"),)
    try:
        stub.CreateTenant(tenant_service_pb2.CreateTenantRequest(name=TENANT), metadata=metadata)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise
    request = tenant_service_pb2.CreateKeyRequest(tenant=TENANT, label="made by lorikeet up")
    return stub.CreateKey(request, metadata=metadata).secret


def _ask_all(profile: Profile, question: str) -> Sequence[_Answer]:
    """Ask every model at the same moment and show the answers as they grow."""
    metadata = (("authorization", f"Bearer {profile.key}"),)
    with grpc.insecure_channel(profile.server, options=CHANNEL_OPTIONS) as channel:
        stub = rpc.GatewayServiceStub(channel)
        models = stub.ListModels(pb.ListModelsRequest(), metadata=metadata).models
        answers = [_Answer(model.id) for model in models]
        threads = [
            threading.Thread(target=_ask, args=(stub, metadata, question, answer))
            for answer in answers
        ]
        console.print(f"[bold]{question}[/bold]")
        with Live(console=console, refresh_per_second=8) as live:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                live.update(_panels(answers))
                threads[0].join(0.1)
            live.update(_panels(answers))
    return answers


def _ask(
    stub: "rpc.GatewayServiceStub",
    metadata: tuple[tuple[str, str], ...],
    question: str,
    answer: _Answer,
) -> None:
    request = pb.GenerateRequest(
        model=answer.model,
        chat=pb.Chat(messages=[pb.ChatMessage(role="user", content=question)]),
        sampling=SamplingParams(max_tokens=64, temperature=0.0),
    )
    try:
        for piece in stub.Generate(request, metadata=metadata):
            answer.text += piece.text
            if piece.HasField("batch"):
                answer.batch = piece.batch
    except grpc.RpcError as error:
        answer.error = error


def _panels(answers: Sequence[_Answer]) -> Columns:
    width = max(30, console.width // max(1, len(answers)) - 1)
    return Columns(
        [Panel(answer.text, title=answer.model, width=width) for answer in answers], padding=0
    )


def _print_lines(profile: Profile) -> None:
    """Commands to paste while the suite runs."""
    adapter = next((folder.name for folder in _examples()), "")
    where = f"LORIKEET_HOME={home()} " if "LORIKEET_HOME" in os.environ else ""
    messages = '[{"role": "user", "content": "Why is the sky blue?"}]'
    typer.echo(
        f"""Ready to paste while `lorikeet up` runs:

{where}.venv/bin/lorikeet chat --model {adapter} "Why is the sky blue?"

curl -N {profile.http}/chat/completions -H "Authorization: Bearer {profile.key}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{adapter}", "stream": true, "messages": {messages}}}'

grpcurl -plaintext -H "authorization: Bearer {profile.key}" \\
  -d '{{"model": "{adapter}", "prompt": "The sky is", "sampling": {{"max_tokens": 20}}}}' \\
  {profile.server} lorikeet.gateway.v1.GatewayService/Generate
"""
    )
