"""The trainer on the wire."""

from collections.abc import AsyncIterator

from lorikeet.trainer.v1 import trainer_service_pb2 as pb
from lorikeet.trainer.v1 import trainer_service_pb2_grpc as rpc
from services.core.errors import InvalidRequest
from services.runtime import call
from services.runtime.interceptors import Context
from services.runtime.paging import Page
from services.trainer.datasets import DataSets
from services.trainer.desk import Desk
from services.trainer.jobs import Job
from services.trainer.wire import data_to_wire, job_to_wire, point_to_wire, wish_from_wire


class TrainerServicer(rpc.TrainerServiceServicer):
    def __init__(self, desk: Desk, data: DataSets, rendezvous: pb.Rendezvous) -> None:
        self._desk = desk
        self._data = data
        self._rendezvous = rendezvous

    async def WriteData(
        self, request_iterator: AsyncIterator[pb.WriteDataRequest], context: Context
    ) -> pb.WriteDataResponse:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None:
            raise InvalidRequest.of("data", "the stream was empty")
        tenant = call.current().caller.acting_for(first.tenant)

        async def pieces() -> AsyncIterator[bytes]:
            yield first.data
            async for request in requests:
                yield request.data

        found = await self._data.write(tenant, first.name, pieces())
        return pb.WriteDataResponse(data=data_to_wire(found))

    async def CreateJob(
        self, request: pb.CreateJobRequest, context: Context
    ) -> pb.CreateJobResponse:
        caller = call.current().caller
        tenant = caller.acting_for(request.tenant)
        job = await self._desk.create(wish_from_wire(request, tenant, caller.name))
        return pb.CreateJobResponse(job=self._job(job))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        tenant = call.current().caller.acting_for(request.tenant)
        return pb.GetJobResponse(job=self._job(await self._desk.get(tenant, request.job_id)))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        tenant = call.current().caller.acting_for(request.tenant)
        page = Page.asked(request.page_size, request.page_token)
        jobs, token = await self._desk.page(tenant, page)
        return pb.ListJobsResponse(jobs=[self._job(job) for job in jobs], next_page_token=token)

    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        tenant = call.current().caller.acting_for(request.tenant)
        job = await self._desk.cancel(tenant, request.job_id)
        return pb.CancelJobResponse(job=self._job(job))

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchJobResponse]:
        tenant = call.current().caller.acting_for(request.tenant)
        news = self._desk.watch(tenant, request.job_id, after=request.after_step)
        async for job, points in news:
            yield pb.WatchJobResponse(
                job=self._job(job), points=[point_to_wire(point) for point in points]
            )

    def _job(self, job: Job) -> pb.Job:
        return job_to_wire(job, self._rendezvous)
