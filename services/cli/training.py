"""lorikeet train: from a file of examples to a version of an adapter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from lorikeet.trainer.v1 import trainer_service_pb2_grpc as rpc
from services.cli.connection import Metadata, TenantOption, as_either, channel
from services.cli.following import JOB_COLUMNS, Plot, follow
from services.cli.show import (
    Output,
    OutputOption,
    enum_word,
    notice,
    one_sentence,
    progress,
    show,
)

PIECE_BYTES = 1 << 20
Data = Annotated[
    Path,
    typer.Argument(
        help="Examples: .jsonl or .csv with messages; instruction, output (and input); prompt, "
        "completion; text, label; or text."
    ),
]


def train(
    data: Data,
    name: Annotated[
        str, typer.Option(help="The adapter that gets the version. Default: as file.")
    ] = "",
    base: Annotated[str, typer.Option(help="The base model. Default: the only one.")] = "",
    rank: Annotated[int, typer.Option(min=1, help="Of the adapter.")] = 8,
    alpha: Annotated[float, typer.Option(min=0, help="Default: twice the rank.")] = 0.0,
    dropout: Annotated[float, typer.Option(min=0, max=0.99)] = 0.0,
    target: Annotated[
        list[str] | None, typer.Option(help="A layer to adapt, as q_proj; repeat. Default: all.")
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Default: as many as --epochs take.")] = 0,
    epochs: Annotated[float, typer.Option(min=0, help="Passes over the data. Default: 1.")] = 0.0,
    learning_rate: Annotated[float, typer.Option(min=0, help="The highest.")] = 0.001,
    warmup: Annotated[int, typer.Option(min=0, help="Steps in which the rate rises.")] = 0,
    pack: Annotated[int, typer.Option(min=2, help="Tokens that run together.")] = 1024,
    accumulate: Annotated[int, typer.Option(min=1, help="Packs of a step.")] = 1,
    validation: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of examples to measure by.")
    ] = 0.1,
    evaluate: Annotated[int, typer.Option(min=0, help="Measure each so many steps.")] = 0,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after so many measurements without a better one.")
    ] = 0,
    checkpoint: Annotated[int, typer.Option(min=1, help="Save each so many steps.")] = 50,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    plot: Plot = None,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Train an adapter with LoRA on a file of examples; its version becomes @candidate.

    Ctrl-C stops following, not the job: `lorikeet jobs watch ID` goes on, `jobs cancel ID` ends it.
    """
    config = pb.TrainingConfig(
        rank=rank, alpha=alpha, dropout=dropout, target_modules=target, steps=steps,
        epochs=epochs, learning_rate=learning_rate, warmup_steps=warmup, pack_tokens=pack,
        packs_a_step=accumulate, validation_share=validation, evaluate_steps=evaluate,
        patience=patience, checkpoint_steps=checkpoint, seed=seed,
    )  # fmt: skip
    with one_sentence(), channel() as connection:
        who, stub = as_either(tenant), rpc.TrainerServiceStub(connection)
        sent = _send(stub, data, who, tenant)
        request = pb.CreateJobRequest(
            tenant=tenant,
            adapter=name or data.stem.lower(),
            base_model=base,
            data_sha256=sent.sha256,
            config=config,
        )
        job = stub.CreateJob(request, metadata=who).job
        if not detach:
            kind = enum_word(pb.DataKind.DESCRIPTOR, pb.DataKind.Name(sent.kind))
            notice(f"{job.id}: {sent.rows} examples of {kind}")
            job = follow(stub, job, who, plot_to=plot)
    show([job], output, *JOB_COLUMNS)


def _send(stub: rpc.TrainerServiceStub, data: Path, who: Metadata, tenant: str) -> pb.DataSet:
    size = data.stat().st_size
    with progress() as bar, data.open("rb") as file:
        task = bar.add_task(f"Sending {data.name}", total=size)

        def pieces() -> Iterator[pb.WriteDataRequest]:
            yield pb.WriteDataRequest(tenant=tenant, name=data.name)
            while piece := file.read(PIECE_BYTES):
                yield pb.WriteDataRequest(data=piece)
                bar.advance(task, len(piece))

        return stub.WriteData(pieces(), metadata=who).data
