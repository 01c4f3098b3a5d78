"""Jobs and data sets as messages, and back."""

from dataclasses import asdict

from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from services.core.types import TenantId
from services.runtime.db import time_of
from services.runtime.wire import time_to_wire
from services.trainer.config import TrainingConfig
from services.trainer.federation import Federation, Participant
from services.trainer.jobs import LORA, DataSet, Job, Point, Wish

_CONFIG = [field.name for field in pb.TrainingConfig.DESCRIPTOR.fields]
_FEDERATED = [
    field.name for field in pb.FederatedConfig.DESCRIPTOR.fields if field.name != "participants"
]


def wish_from_wire(request: pb.CreateJobRequest, tenant: TenantId, by: str) -> Wish:
    """Raises InvalidRequest."""
    federation = None
    if request.HasField("federated"):
        federation = federation_from_wire(request.federated)
    return Wish(
        tenant=tenant,
        adapter=request.adapter,
        base_model=request.base_model,
        data_sha256=request.data_sha256,
        method=request.method or LORA,
        federation=federation,
        config=config_from_wire(request.config),
        created_by=by,
        request_id=request.request_id,
    )


def config_from_wire(message: pb.TrainingConfig) -> TrainingConfig:
    """Raises InvalidRequest."""
    values = {name: getattr(message, name) for name in _CONFIG}
    return TrainingConfig.asked(**values | {"target_modules": tuple(message.target_modules)})


def federation_from_wire(message: pb.FederatedConfig) -> Federation:
    """Raises InvalidRequest."""
    participants = [Participant(each.name, each.public_key) for each in message.participants]
    values = {name: getattr(message, name) for name in _FEDERATED}
    return Federation.asked(participants, **values | {"labels": tuple(message.labels)})


def federation_to_wire(federation: Federation) -> pb.FederatedConfig:
    participants = [pb.Participant(**asdict(each)) for each in federation.participants]
    values = {name: getattr(federation, name) for name in _FEDERATED}
    return pb.FederatedConfig(**values, participants=participants)


def job_to_wire(job: Job, rendezvous: pb.Rendezvous) -> pb.Job:
    moments = {
        name: time_to_wire(time_of(moment))
        for name, moment in (
            ("create_time", job.created_us),
            ("start_time", job.started_us),
            ("end_time", job.ended_us),
        )
        if moment
    }
    return pb.Job(
        id=job.id,
        tenant=job.tenant,
        adapter=job.adapter,
        base_model=job.base_model,
        base_fingerprint=job.base_fingerprint,
        data=None if job.data is None else data_to_wire(job.data),
        method=job.method,
        config=pb.TrainingConfig(**asdict(job.config)),
        state=pb.JobState.Value(f"JOB_STATE_{job.state.name}"),
        saved_steps=job.saved_steps,
        total_steps=job.total_steps,
        error=job.error,
        version=job.version,
        digest=job.digest or "",
        metrics=job.metrics,
        created_by=job.created_by,
        attempts=job.term,
        federated=None if job.federation is None else federation_to_wire(job.federation),
        rendezvous=None if job.federation is None else rendezvous,
        **moments,
    )


def data_to_wire(data: DataSet) -> pb.DataSet:
    kind = pb.DataKind.Value(f"DATA_KIND_{data.kind.name}")
    return pb.DataSet(**asdict(data) | {"kind": kind})


def point_to_wire(point: Point) -> pb.TrainingPoint:
    return pb.TrainingPoint(**asdict(point))
