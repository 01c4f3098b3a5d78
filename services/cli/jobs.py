"""lorikeet jobs: what is trained, was, and will be."""

from typing import Annotated

import typer

from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from lorikeet.trainer.v1 import trainer_service_pb2_grpc as rpc
from services.cli.connection import TenantOption, as_either, channel, every
from services.cli.following import JOB_COLUMNS, Plot, follow
from services.cli.show import Output, OutputOption, one_sentence, show

app = typer.Typer(no_args_is_help=True, help="Training jobs; `lorikeet train` makes them.")

JobId = Annotated[str, typer.Argument(help="The job's id.")]
END_COLUMNS = ("attempts", "create_time", "end_time", "error")


@app.command("list")
def list_jobs(tenant: TenantOption = "", output: OutputOption = Output.TABLE) -> None:
    """List jobs, the newest first."""
    request = pb.ListJobsRequest(tenant=tenant, page_size=1000)
    with one_sentence(), channel() as connection:
        list_page = rpc.TrainerServiceStub(connection).ListJobs
        found = every(list_page, request, as_either(tenant), "jobs")
    show(found, output, *JOB_COLUMNS, "create_time")


@app.command("show")
def show_job(job: JobId, tenant: TenantOption = "", output: OutputOption = Output.TABLE) -> None:
    """Show one job."""
    request = pb.GetJobRequest(tenant=tenant, job_id=job)
    with one_sentence(), channel() as connection:
        stub = rpc.TrainerServiceStub(connection)
        found = stub.GetJob(request, metadata=as_either(tenant)).job
    show([found], output, *JOB_COLUMNS, *END_COLUMNS)


@app.command()
def watch(
    job: JobId,
    plot: Plot = None,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Follow a job to its end."""
    request = pb.GetJobRequest(tenant=tenant, job_id=job)
    with one_sentence(), channel() as connection:
        who, stub = as_either(tenant), rpc.TrainerServiceStub(connection)
        found = stub.GetJob(request, metadata=who).job
        found = follow(stub, found, who, plot_to=plot)
    show([found], output, *JOB_COLUMNS)


@app.command()
def cancel(job: JobId, tenant: TenantOption = "", output: OutputOption = Output.TABLE) -> None:
    """End a job without a result."""
    request = pb.CancelJobRequest(tenant=tenant, job_id=job)
    with one_sentence(), channel() as connection:
        stub = rpc.TrainerServiceStub(connection)
        found = stub.CancelJob(request, metadata=as_either(tenant)).job
    show([found], output, *JOB_COLUMNS)
