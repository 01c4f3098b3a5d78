"""lorikeet federate: many sites train one adapter, and keep their rows."""

from pathlib import Path
from typing import Annotated

import typer

from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from lorikeet.trainer.v1 import trainer_service_pb2_grpc as rpc
from services.cli.connection import TenantOption, as_either, channel, home
from services.cli.federated_demo import federated_demo
from services.cli.following import JOB_COLUMNS, Plot, follow
from services.cli.show import Output, OutputOption, notice, one_sentence, show
from services.trainer.federation import AVERAGES, METHODS
from services.trainer.flower_driver.certificates import new_node_key
from services.trainer.flower_driver.environment import Flower
from services.trainer.flower_driver.supernode import Keeper, SuperNode

app = typer.Typer(
    no_args_is_help=True,
    help="Federated training: sites keep their rows, the trainer gets updates. Each site makes a "
    "`key`; whoever `run`s a job names their public halves; each site then `join`s. Nodes dial out "
    "over TLS and prove their keys, but whoever reaches the port of `run` may start runs on the "
    "sites: let only the sites reach it. `make flower` makes the environment that it needs.",
)
app.command("demo")(federated_demo)


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="Gets the private key; FILE.pub the public one.")],
) -> None:
    """Make a site's key."""
    with one_sentence():
        typer.echo(new_node_key(file))


@app.command()
def run(
    name: Annotated[str, typer.Option(help="The adapter that gets the version.")],
    site: Annotated[
        list[str], typer.Option(help="NAME=FILE.pub of a site that takes part; repeat.")
    ],
    base: Annotated[str, typer.Option(help="The base model. Default: the only one.")] = "",
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "flexlora",
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    clients: Annotated[int, typer.Option(min=0, help="Sites asked in a round. 0: all.")] = 0,
    quorum: Annotated[
        int, typer.Option(min=0, help="Updates that a round needs. 0: more than half.")
    ] = 0,
    deadline: Annotated[float, typer.Option(min=1, help="Seconds of a round.")] = 600.0,
    steps: Annotated[int, typer.Option(min=1, help="Of a site in a round.")] = 10,
    batch: Annotated[int, typer.Option(min=1, help="Examples of a step.")] = 4,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapter.")] = 8,
    alpha: Annotated[float, typer.Option(min=0, help="Default: twice the rank.")] = 0.0,
    target: Annotated[
        list[str] | None, typer.Option(help="A layer to adapt, as q_proj; repeat. Default: all.")
    ] = None,
    learning_rate: Annotated[float, typer.Option(min=0)] = 0.001,
    pack: Annotated[int, typer.Option(min=2, help="Tokens of the longest example.")] = 1024,
    density: Annotated[float, typer.Option(min=0, max=1, help="Of sparse stages.")] = 0.0,
    first_rounds: Annotated[int, typer.Option(min=0, help="Of methods with two stages.")] = 0,
    proximal: Annotated[float, typer.Option(min=0, help="FedProx's mu.")] = 0.0,
    clip: Annotated[float, typer.Option(min=0, help="Largest norm of an update.")] = 0.0,
    norm_bound: Annotated[
        float, typer.Option(min=0, help="Updates with a larger norm are refused. 0: none is.")
    ] = 0.0,
    average: Annotated[
        str, typer.Option(help=f"Of updates: {', '.join(AVERAGES)}; not of every method.")
    ] = "mean",
    noise: Annotated[float, typer.Option(min=0, help="Of the sum, in units of --clip.")] = 0.0,
    label: Annotated[
        list[str] | None, typer.Option(help="Of classification: a label that there is; repeat.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    authority: Annotated[
        Path | None, typer.Option(help="Write the certificate that sites need to this file.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    plot: Plot = None,
    tenant: TenantOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Train an adapter with the sites that are named; its version becomes @candidate.

    Ctrl-C stops following, not the job: `lorikeet jobs watch ID` goes on, `jobs cancel ID` ends it.
    """
    with one_sentence(), channel() as connection:
        federated = pb.FederatedConfig(
            participants=[_participant(each) for each in site], method=method, rounds=rounds,
            clients_per_round=clients, quorum=quorum, deadline_seconds=deadline,
            local_steps=steps, batch=batch, density=density, first_rounds=first_rounds,
            proximal_mu=proximal, clip_norm=clip, noise_multiplier=noise, labels=label,
            norm_bound=norm_bound, average=average,
        )  # fmt: skip
        config = pb.TrainingConfig(
            rank=rank, alpha=alpha, target_modules=target, learning_rate=learning_rate,
            pack_tokens=pack, seed=seed,
        )  # fmt: skip
        request = pb.CreateJobRequest(
            tenant=tenant, adapter=name, base_model=base, method="federated", config=config,
            federated=federated,
        )  # fmt: skip
        who, stub = as_either(tenant), rpc.TrainerServiceStub(connection)
        job = stub.CreateJob(request, metadata=who).job
        if authority is not None:
            authority.write_text(job.rendezvous.authority)
        notice(f"{job.id}: sites join at {job.rendezvous.address}")
        if not detach:
            job = follow(stub, job, who, plot_to=plot)
    show([job], output, *JOB_COLUMNS)


@app.command()
def join(
    site: Annotated[str, typer.Option(help="This site's name.")],
    key: Annotated[Path, typer.Option(help="Its private key, as `federate key` made it.")],
    data: Annotated[Path, typer.Option(help="Its rows, .jsonl or .csv; they stay here.")],
    base: Annotated[Path, typer.Option(help="The base model's folder or GGUF file.")],
    superlink: Annotated[str, typer.Option(help="host:port, as `federate run` says.")],
    authority: Annotated[Path, typer.Option(help="Certificate, as `federate run` wrote it.")],
    port: Annotated[int, typer.Option(help="Of the loopback interface, for itself.")] = 9094,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads. 0: as torch likes.")] = 0,
) -> None:
    """Take part as a site, until Ctrl-C. It dials out, and needs no open port.

    Whoever runs the trainer decides what is computed on this machine: join only whom you trust.
    """
    # torch takes a while, and other commands need none.
    from services.trainer.training.unpacking import unpacked  # noqa: PLC0415

    with one_sentence():
        flower = Flower.found()
        for file in (key, data, authority):
            if not file.is_file():
                raise FileNotFoundError(f"there is no file {file}")
        folder, fingerprint = unpacked(base, home() / "models")
        node = SuperNode(
            name=site, folder=home() / "sites" / site, superlink=superlink, authority=authority,
            key=key, data=data, base=folder, fingerprint=fingerprint, port=port, threads=threads,
        )  # fmt: skip
        try:
            Keeper(node, flower, told=notice).run()
        except KeyboardInterrupt:
            notice("stopped")


def _participant(said: str) -> pb.Participant:
    name, _, file = said.partition("=")
    if not file:
        raise typer.BadParameter(f"{said!r} is not NAME=FILE.pub")
    return pb.Participant(name=name, public_key=Path(file).read_text().strip())
