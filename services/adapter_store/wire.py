"""Versions, aliases and changes as messages."""

from dataclasses import fields

from lorikeet.adapter_store.v1 import adapter_lifecycle_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as store_pb
from lorikeet.types.v1 import adapter_pb2
from services.adapter_store.arrangement import Arrangement
from services.adapter_store.changes import Told
from services.adapter_store.records import AdapterVersion, Move, MoveKind, Split
from services.adapter_store.tensors import item_bytes
from services.core.changes import Change
from services.runtime.wire import time_to_wire

_KINDS = {
    MoveKind.SET: pb.ALIAS_MOVE_KIND_SET,
    MoveKind.PROMOTE: pb.ALIAS_MOVE_KIND_PROMOTE,
    MoveKind.ROLLBACK: pb.ALIAS_MOVE_KIND_ROLLBACK,
    MoveKind.CANARY: pb.ALIAS_MOVE_KIND_CANARY,
    MoveKind.DELETE: pb.ALIAS_MOVE_KIND_DELETE,
}
_SPLITS = {
    Split.REQUEST: pb.CANARY_SPLIT_REQUEST,
    Split.TENANT: pb.CANARY_SPLIT_TENANT,
}
_CHANGE_FIELDS = [field.name for field in fields(Change) if field.name != "kind"]
_SPLITS_BACK = {message: split for split, message in _SPLITS.items()}


def split_from_wire(split: pb.CanarySplit.ValueType) -> Split:
    return _SPLITS_BACK.get(split, Split.REQUEST)


def alias_to_wire(move: Move) -> pb.Alias:
    canary = None if move.target is None else move.target.canary
    return pb.Alias(
        tenant=move.tenant,
        adapter=move.adapter,
        name=move.alias,
        generation=move.generation,
        number=0 if move.target is None else move.target.number,
        canary=None
        if canary is None
        else pb.Canary(number=canary.number, percent=canary.percent, split=_SPLITS[canary.split]),
        kind=_KINDS[move.kind],
        moved_by=move.by,
        reason=move.reason,
        create_time=time_to_wire(move.created),
    )


def told_to_wire(told: Told) -> pb.WatchResponse:
    if told.change is None or told.created is None:
        return pb.WatchResponse(cursor=told.cursor)
    facts = {name: getattr(told.change, name) for name in _CHANGE_FIELDS}
    kind = told.change.kind.name if told.change.kind else "UNSPECIFIED"
    message = pb.Change(
        kind=pb.ChangeKind.Value(f"CHANGE_KIND_{kind}"),
        create_time=time_to_wire(told.created),
        **facts,
    )
    return pb.WatchResponse(cursor=told.cursor, change=message)


def parts_to_wire(arrangement: Arrangement) -> list[store_pb.UploadPart]:
    matrices = [
        store_pb.UploadPart(
            offset=part.offset,
            rows=part.shape[0],
            columns=part.shape[1],
            element_bytes=item_bytes(part.dtype),
            transposed=part.is_transposed,
        )
        for part in arrangement.parts
    ]
    return [store_pb.UploadPart(given=arrangement.head), *matrices]


def version_to_wire(version: AdapterVersion) -> adapter_pb2.AdapterVersion:
    origin = version.provenance
    return adapter_pb2.AdapterVersion(
        tenant=version.tenant,
        adapter=version.adapter,
        number=version.number,
        digest=version.digest,
        base_model=version.base_model,
        base_fingerprint=version.base_fingerprint,
        size_bytes=version.size_bytes,
        max_rank=version.max_rank,
        module_count=version.module_count,
        parameter_count=version.parameter_count,
        create_time=time_to_wire(version.created),
        provenance=adapter_pb2.Provenance(
            created_by=origin.created_by,
            job=origin.job,
            licence=origin.licence,
            parents=origin.parents,
            labels=origin.labels,
            metrics=origin.metrics,
        ),
        delete_time=None if version.deleted is None else time_to_wire(version.deleted),
    )
