"""The fleet for operators, on the wire."""

from lorikeet.scheduler.v1 import fleet_service_pb2 as pb
from lorikeet.scheduler.v1 import fleet_service_pb2_grpc as rpc
from services.core.types import Digest, WorkerId
from services.runtime import call
from services.runtime.interceptors import Context
from services.runtime.paging import Page, page_of
from services.scheduler.explanation import explain
from services.scheduler.office import Office
from services.scheduler.wire import (
    cost_to_wire,
    migration_to_wire,
    pin_to_wire,
    wish_from_wire,
    worker_to_wire,
)

DEFAULT_PAGE = 100


class FleetServicer(rpc.FleetServiceServicer):
    def __init__(self, office: Office) -> None:
        self._office = office

    async def SetWorker(
        self, request: pb.SetWorkerRequest, context: Context
    ) -> pb.SetWorkerResponse:
        operations = self._office.reign().operations
        wish, by = wish_from_wire(request.wish), call.current().caller.name
        worker = await operations.set_worker(WorkerId(request.worker_id), wish, by)
        return pb.SetWorkerResponse(worker=worker_to_wire(worker))

    async def ExplainPlacement(
        self, request: pb.ExplainPlacementRequest, context: Context
    ) -> pb.ExplainPlacementResponse:
        reign = self._office.reign()
        adapter = Digest(request.adapter_digest)
        model, count = reign.operations.model(request.base_model), reign.operations.homes(adapter)
        pin = reign.fleet.wishes.pins.get(adapter)
        costs = explain(reign.fleet, adapter, model, count)
        return pb.ExplainPlacementResponse(
            requests_per_minute=reign.demands.requests_per_minute(adapter),
            homes=count if adapter else 0,
            pinned=pin.workers if pin is not None else 0,
            workers=[cost_to_wire(cost) for cost in costs],
        )

    async def PinAdapter(
        self, request: pb.PinAdapterRequest, context: Context
    ) -> pb.PinAdapterResponse:
        workers = await self._office.reign().operations.pin(
            Digest(request.adapter_digest),
            request.base_model,
            request.workers,
            call.current().caller.name,
        )
        return pb.PinAdapterResponse(worker_ids=workers)

    async def ListPins(self, request: pb.ListPinsRequest, context: Context) -> pb.ListPinsResponse:
        pins = self._office.reign().operations.pins()
        return pb.ListPinsResponse(pins=[pin_to_wire(pin) for pin in pins])

    async def PreloadAdapter(
        self, request: pb.PreloadAdapterRequest, context: Context
    ) -> pb.PreloadAdapterResponse:
        workers = self._office.reign().operations.preload(
            Digest(request.adapter_digest),
            request.base_model,
            [WorkerId(worker) for worker in request.worker_ids],
        )
        return pb.PreloadAdapterResponse(worker_ids=workers)

    async def Rebalance(
        self, request: pb.RebalanceRequest, context: Context
    ) -> pb.RebalanceResponse:
        moves = await self._office.reign().loop.rebalance(dry_run=request.dry_run)
        return pb.RebalanceResponse(migrations=[migration_to_wire(move) for move in moves])

    async def ListMigrations(
        self, request: pb.ListMigrationsRequest, context: Context
    ) -> pb.ListMigrationsResponse:
        page = Page.asked(request.page_size or DEFAULT_PAGE, request.page_token)
        found = await self._office.reign().migrations.page(
            request.worker_id, before=page.before, limit=page.size + 1
        )
        shown, token = page_of(found, page, key=lambda numbered: str(numbered[0]))
        return pb.ListMigrationsResponse(
            migrations=[migration_to_wire(move) for _, move in shown], next_page_token=token
        )
