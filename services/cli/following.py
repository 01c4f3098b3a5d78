"""A training job, followed to its end: a bar of its steps, and the curve of its loss."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from lorikeet.trainer.v1 import trainer_service_pb2_grpc as rpc
from services.cli.connection import Metadata
from services.cli.loss_plot import plot, save_plot
from services.cli.show import EXIT_REFUSED, enum_word, problems

JOB_COLUMNS = (
    "id", "adapter", "base_model", "method", "state", "saved_steps", "total_steps", "version",
    "metrics.validation_loss",
)  # fmt: skip
OVER = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)

Plot = Annotated[
    Path | None, typer.Option(help="Write the curve of the loss to this file, as SVG.")
]


COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
    TextColumn("{task.fields[loss]}"),
)


@dataclass(slots=True)
class Course:
    """What a job has shown so far."""

    job: pb.Job
    points: list[pb.TrainingPoint] = field(default_factory=list)
    bar: Progress = field(default_factory=lambda: Progress(*COLUMNS, console=problems))

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
    if not problems.is_terminal:
        problems.print()
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
