"""lorikeet train: from a file of examples to a version of an adapter, followed to its end."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from lorikeet.trainer.v1 import trainer_service_pb2_grpc as rpc
from services.cli.connection import Metadata, TenantOption, as_either, channel
from services.cli.loss_plot import plot, save_plot
from services.cli.show import (
    EXIT_REFUSED,
    Output,
    OutputOption,
    enum_word,
    notice,
    one_sentence,
    problems,
    progress,
    show,
)

PIECE_BYTES = 1 << 20
JOB_COLUMNS = (
    "id", "adapter", "base_model", "method", "state", "saved_steps", "total_steps", "version",
    "metrics.validation_loss",
)  # fmt: skip
OVER = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)

Data = Annotated[
    Path,
    typer.Argument(
        help="Examples: .jsonl or .csv with messages; instruction, output (and input); prompt, "
        "completion; text, label; or text."
    ),
]
Plot = Annotated[
    Path | None, typer.Option(help="Write the curve of the loss to this file, as SVG.")
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
            notice(
                f"{job.id}: {sent.rows} examples of {enum_word(pb.DataKind.DESCRIPTOR, _kind(sent))}"
            )
            job = follow(stub, job, who, plot_to=plot)
    show([job], output, *JOB_COLUMNS)


def _kind(data: pb.DataSet) -> str:
    return pb.DataKind.Name(data.kind)


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


@dataclass(slots=True)
class Course:
    """What a job has shown so far."""

    job: pb.Job
    points: list[pb.TrainingPoint] = field(default_factory=list)
    bar: Progress = field(
        default_factory=lambda: Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=problems,
        )  # fmt: skip
    )

    def heard(self, news: pb.WatchJobResponse) -> None:
        self.job = news.job
        self.points += news.points
        if not self.bar.tasks:
            self.bar.add_task("", total=None, loss="")
        word = enum_word(pb.JobState.DESCRIPTOR, pb.JobState.Name(self.job.state))
        last = self.points[-1] if self.points else None
        self.bar.update(
            self.bar.tasks[0].id,
            description=f"{self.job.adapter}: {word}",
            completed=last.step if last else 0,
            total=self.job.total_steps or self.job.config.steps or None,
            loss=_said(self.points),
        )

    def __rich__(self) -> Group:
        shown = [plot(self.points, width=min(100, problems.width), height=8)]
        return Group(*(shown if self.points else []), self.bar)


def follow(
    stub: rpc.TrainerServiceStub, job: pb.Job, who: Metadata, *, plot_to: Path | None
) -> pb.Job:
    """To its end; a server that stops ends the call, and another may be there. Exits with 1 unless
    it succeeded."""
    course = Course(job)
    request = pb.WatchJobRequest(tenant=job.tenant, job_id=job.id)
    with Live(course, console=problems, refresh_per_second=4):
        while course.job.state not in OVER:
            try:
                for news in stub.WatchJob(request, metadata=who):
                    course.heard(news)
                    request.after_step = course.points[-1].step if course.points else 0
            except KeyboardInterrupt:
                break
    if plot_to is not None and course.points:
        save_plot(course.points, plot_to, title=f"{job.adapter}: loss")
    if course.job.state == pb.JOB_STATE_FAILED:
        problems.print(f"[red]error:[/red] {course.job.error}", highlight=False, soft_wrap=True)
    if course.job.state in (pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED):
        raise SystemExit(EXIT_REFUSED)
    return course.job


def _said(points: list[pb.TrainingPoint]) -> str:
    """The newest numbers."""
    if not points:
        return ""
    told = [f"loss {points[-1].loss:.3f}"]
    measured = [point for point in points if point.HasField("validation_loss")]
    if measured:
        told.append(f"held out {measured[-1].validation_loss:.3f}")
        if measured[-1].HasField("accuracy"):
            told.append(f"accuracy {measured[-1].accuracy:.1%}")
    return ", ".join(told)
