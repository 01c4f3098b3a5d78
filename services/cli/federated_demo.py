"""lorikeet federate demo: four sites train one adapter over Flower, and one of them dies."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import grpc
import typer

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as store_pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as store_rpc
from lorikeet.gateway.v1 import gateway_service_pb2 as gateway_pb
from lorikeet.gateway.v1 import gateway_service_pb2_grpc as gateway_rpc
from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from lorikeet.trainer.v1 import trainer_service_pb2_grpc as rpc
from lorikeet.types.v1.generation_pb2 import SamplingParams
from services.cli.connection import CHANNEL_OPTIONS, Metadata, Profile, home
from services.cli.demo import running
from services.cli.show import console, one_sentence
from services.cli.suite import Suite, embedded_model
from services.core.types import Fingerprint
from services.trainer.flower_driver.certificates import new_node_key
from services.trainer.flower_driver.environment import Flower
from services.trainer.flower_driver.supernode import Keeper, SuperNode, kept

Base = tuple[Path, Fingerprint]

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "federation"
ADAPTER, VICTIM = "concierge", "spa"
QUESTION = "Where can I park?"
TARGETS = ("q_proj", "v_proj")
STEPS, BATCH, RATE, PACK_TOKENS = 5, 4, 5e-3, 128
WORKER_MEBIBYTES = 1024  # the sites need the rest
AT_WORK_LOOKS, LOOK_SECONDS = 30, 0.1  # longer than what is left of a round before takes to end


def federated_demo(
    question: str = QUESTION,
    rounds: Annotated[int, typer.Option(min=2)] = 3,
    deadline: Annotated[
        float, typer.Option(min=10, help="Seconds of a round: so long the dead are waited for.")
    ] = 75.0,
) -> None:
    """Start the suite and four sites with rows of their own, train one adapter on all of them, kill
    a site in the middle of a round, and ask the adapter that comes of it."""
    with one_sentence():
        flower, started = Flower.found(), time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            unpacking = pool.submit(_unpacked)  # while services start, which is mostly waiting
            with running(0, None, WORKER_MEBIBYTES, trains=True) as (suite, profile):
                _demonstrate(suite, profile, flower, unpacking, question, rounds, deadline)
        console.print(f"Everything is stopped, after {time.monotonic() - started:.0f} s.")


def _unpacked() -> Base:
    """For the sites."""
    # torch takes a while, and other commands need none.
    from services.trainer.training.unpacking import unpacked  # noqa: PLC0415

    return unpacked(embedded_model(), home() / "models")


def _demonstrate(
    suite: Suite,
    profile: Profile,
    flower: Flower,
    unpacking: Future[Base],
    question: str,
    rounds: int,
    deadline: float,
) -> None:
    who = (("authorization", f"Bearer {profile.key}"),)
    with grpc.insecure_channel(profile.server, options=CHANNEL_OPTIONS) as channel:
        job = _create(channel, who, suite, rounds=rounds, deadline=deadline)
        console.print(f"Without it: {_ask(channel, who, job.base_model, question)}")
        try:
            with _sites(suite, flower, job, unpacking.result()) as keepers:
                job = _followed(channel, who, job, keepers)
        except BaseException:  # the next suite here would go on with it
            _cancel(channel, who, job)
            raise
        _show_version(channel, who, job)
        console.print(f"With it: {_ask(channel, who, f'{ADAPTER}@candidate', question)}")


def _create(
    channel: grpc.Channel, who: Metadata, suite: Suite, *, rounds: int, deadline: float
) -> pb.Job:
    """With a key for each site, made here as each site would."""
    folder = suite.home / "sites"
    folder.mkdir(parents=True, exist_ok=True)
    participants = []
    for data in sorted(EXAMPLES.glob("*.jsonl")):
        key = folder / f"{data.stem}.key"
        key.unlink(missing_ok=True)
        participants.append(pb.Participant(name=data.stem, public_key=new_node_key(key)))
    request = pb.CreateJobRequest(
        adapter=ADAPTER,
        method="federated",
        config=pb.TrainingConfig(
            target_modules=TARGETS, learning_rate=RATE, pack_tokens=PACK_TOKENS
        ),
        federated=pb.FederatedConfig(
            participants=participants, rounds=rounds, local_steps=STEPS, batch=BATCH,
            deadline_seconds=deadline,
        ),
    )  # fmt: skip
    return rpc.TrainerServiceStub(channel).CreateJob(request, metadata=who).job


@contextmanager
def _sites(suite: Suite, flower: Flower, job: pb.Job, base: Base) -> Iterator[Sequence[Keeper]]:
    folder = suite.home.absolute() / "sites"
    authority = folder / "authority.crt"
    authority.write_text(job.rendezvous.authority)
    first_port = int(job.rendezvous.address.rpartition(":")[2]) + 1
    keepers = [
        Keeper(
            SuperNode(
                name=data.stem, folder=folder / data.stem, superlink=job.rendezvous.address,
                authority=authority, key=folder / f"{data.stem}.key", data=data, base=base[0],
                fingerprint=base[1], port=first_port + index, threads=1,
            ),
            flower,
            told=lambda said: None,
        )
        for index, data in enumerate(sorted(EXAMPLES.glob("*.jsonl")))
    ]  # fmt: skip
    with kept(keepers):
        yield keepers


def _followed(
    channel: grpc.Channel, who: Metadata, job: pb.Job, keepers: Sequence[Keeper]
) -> pb.Job:
    """To its end. In round 2 a site is killed while it computes; it is started again."""
    victim = next(each for each in keepers if each.node.name == VICTIM)
    request = pb.WatchJobRequest(job_id=job.id)
    for news in rpc.TrainerServiceStub(channel).WatchJob(request, metadata=who):
        for point in news.points:
            console.print(f"Round {point.step}: loss {point.loss:.3f}")
            if point.step == 1:
                _kill_at_work(victim)
        job = news.job
    if job.state != pb.JOB_STATE_SUCCEEDED:
        raise OSError(f"the job has not succeeded: {job.error}")
    return job


def _kill_at_work(victim: Keeper) -> None:
    looks = 0
    for _ in range(600):
        looks = looks + 1 if victim.is_at_work else 0
        if looks == AT_WORK_LOOKS:
            victim.kill()
            console.print(f"Killed {victim.node.name} in the middle of a round.")
            return
        time.sleep(LOOK_SECONDS)
    raise OSError(f"{victim.node.name} was not asked in a minute")


def _cancel(channel: grpc.Channel, who: Metadata, job: pb.Job) -> None:
    with contextlib.suppress(grpc.RpcError):  # it is over
        request = pb.CancelJobRequest(job_id=job.id)
        rpc.TrainerServiceStub(channel).CancelJob(request, metadata=who)


def _show_version(channel: grpc.Channel, who: Metadata, job: pb.Job) -> None:
    stub = store_rpc.AdapterStoreServiceStub(channel)
    request = store_pb.GetVersionRequest(reference=f"{ADAPTER}@candidate")
    version = stub.GetVersion(request, metadata=who).version
    console.print(f"Published {ADAPTER}@{version.number}, which comes of:")
    for name, value in sorted(version.provenance.labels.items()):
        console.print(f"  {name}: {value}", highlight=False)


def _ask(channel: grpc.Channel, who: Metadata, model: str, question: str) -> str:
    request = gateway_pb.GenerateRequest(
        model=model,
        chat=gateway_pb.Chat(messages=[gateway_pb.ChatMessage(role="user", content=question)]),
        sampling=SamplingParams(max_tokens=40, temperature=0.0),
    )
    stub = gateway_rpc.GatewayServiceStub(channel)
    return "".join(piece.text for piece in stub.Generate(request, metadata=who))
