"""The base models that the server knows."""

import grpc

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from services.cli.connection import Metadata
from services.core.base_model import BaseModel
from services.core.errors import NotFound
from services.runtime.wire import base_model_from_wire


def base_model(channel: grpc.Channel, metadata: Metadata, name: str) -> BaseModel:
    """By any of its names, without its tokenizer. Raises NotFound or grpc.RpcError."""
    stub = rpc.AdapterStoreServiceStub(channel)
    listed = stub.ListBaseModels(pb.ListBaseModelsRequest(), metadata=metadata).base_models
    known = [base_model_from_wire(message) for message in listed]
    for model in known:
        if model.is_called(name):
            return model
    raise NotFound(
        f"the base model {name!r} is not served here; "
        f"{', '.join(model.name for model in known) or 'none'} is"
    )
