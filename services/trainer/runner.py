"""Does jobs: takes one, keeps it while its process trains, and publishes what came of it."""

import asyncio
import contextlib
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import structlog

from services.core.clock import Clock
from services.core.errors import (
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ServingError,
)
from services.core.types import Fingerprint
from services.policies.beats import Silence
from services.runtime.beside import cancelled
from services.trainer.federation import MOST_ATTEMPTS
from services.trainer.jobs import Checkpoint, Job, JobState, Lease, LeaseLost, Point, Published
from services.trainer.process import COMMAND, FEDERATED_COMMAND, TrainingProcess, training
from services.trainer.publication import Store, publish
from services.trainer.task import FederatedTask, Refused, Task, Trained
from services.trainer.tasks import Tasks

log = structlog.get_logger()

T = TypeVar("T")

FLUSH_SECONDS = 0.5  # from one writing of points to the next
FOR_GOOD = (InvalidRequest, FailedPrecondition, NotFound, PermissionDenied)


class HeldJobs(Protocol):
    """What is done under a lease raises LeaseLost."""

    async def beats(self) -> dict[str, int]: ...
    async def take(
        self, holder: str, bases: Collection[Fingerprint], silent: Mapping[str, int]
    ) -> Job | None: ...
    async def beat(self, lease: Lease) -> None: ...
    async def add_points(self, lease: Lease, points: Sequence[Point]) -> None: ...
    async def save(self, lease: Lease, checkpoint: Checkpoint) -> None: ...
    async def crashed(self, lease: Lease) -> Job: ...
    async def trained(
        self, lease: Lease, result: Checkpoint, metrics: Mapping[str, float]
    ) -> Job: ...
    async def succeeded(self, lease: Lease, version: Published) -> None: ...
    async def failed(self, lease: Lease, error: str) -> None: ...
    async def released(self, lease: Lease) -> None: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """`lease_seconds`: a trainer that is silent for so long has lost its jobs. `hung_seconds`: a
    process that says nothing for so long is ended. `most_crashes`: in a row, without a new
    checkpoint."""

    lease_seconds: float = 15.0
    look_seconds: float = 1.0
    retry_seconds: float = 5.0
    hung_seconds: float = 3600.0
    most_crashes: int = 3


class Runner:
    def __init__(
        self,
        jobs: HeldJobs,
        tasks: Tasks,
        *,
        store: Store,
        holder: str,
        clock: Clock,
        pace: Pace,
        ended: Callable[[JobState], None] = lambda state: None,
        command: Sequence[str] = COMMAND,
        federated_command: Sequence[str] = FEDERATED_COMMAND,
    ) -> None:
        """`ended`: told of every end."""
        self._jobs = jobs
        self._tasks = tasks
        self._store = store
        self._holder = holder
        self._clock = clock
        self._pace = pace
        self._ended = ended
        self._command = command
        self._federated_command = federated_command
        self._met = asyncio.Lock()  # one job at a time has the place where its sites dial in
        self._silence = Silence(pace.lease_seconds)
        self._silent: dict[str, int] = {}
        self.underway = 0

    async def watch(self) -> None:
        """For good: whose trainer is silent."""
        while True:
            with _logged("watching_failed"):
                beats = await self._jobs.beats()
                self._silent = self._silence.look(beats, self._clock.now())
            await asyncio.sleep(self._pace.lease_seconds / 5)

    async def work(self) -> None:
        """For good: one job after the other. As many may go on at once as are called."""
        while True:
            job = None
            with _logged("taking_failed"):
                fingerprints = self._tasks.bases.fingerprints
                job = await self._jobs.take(self._holder, fingerprints, self._silent)
            if job is None:
                await asyncio.sleep(self._pace.look_seconds)
            else:
                self._silent.pop(job.id, None)
                await self.do(job)

    async def do(self, job: Job) -> None:
        """To its end, or until it is somebody else's."""
        log.info("job_taken", job=job.id, term=job.term, step=job.saved_steps)
        self.underway += 1
        stopped = False
        tasks = [asyncio.create_task(each) for each in (self._through(job), self._beat(job.lease))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        except LeaseLost:
            log.info("job_lost", job=job.id, term=job.term)
        except asyncio.CancelledError:
            stopped = True
            raise
        except Exception:  # it is taken again once its beat has been silent
            log.exception("job_broke", job=job.id)
        finally:
            try:
                await cancelled(tasks)  # and its process, of which there must not be two
                if stopped:
                    with contextlib.suppress(LeaseLost):  # what is published goes on after a lease
                        await self._jobs.released(job.lease)
            finally:
                self.underway -= 1

    async def _beat(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(self._pace.lease_seconds / 5)
            try:
                await self._jobs.beat(lease)
            except LeaseLost:
                raise
            except Exception:  # the database may be well again before anybody takes the job
                log.exception("beating_failed")

    async def _through(self, job: Job) -> None:
        trained: Job | None = job
        if job.state is JobState.RUNNING:
            trained = await self._train(job)
        if trained is not None:
            await self._publish(trained)

    async def _train(self, job: Job) -> Job | None:
        """None if it failed. Its process may die and be started again."""
        while job.crashes < self._pace.most_crashes:
            task = await self._until_there(job, partial(self._tasks.of, job))
            if task is None:
                return None
            async with self._process(task) as process:
                outcome = await self._follow(job, process)
            match outcome:
                case Trained(result, metrics):
                    return await self._jobs.trained(job.lease, result, metrics)
                case Refused(why):
                    await self._fail(job, why)
                    return None
            log.warning("training_died", job=job.id, code=process.returncode)
            job = await self._jobs.crashed(job.lease)
        await self._fail(job, f"its process died {job.crashes} times without getting on")
        return None

    @asynccontextmanager
    async def _process(self, task: Task | FederatedTask) -> AsyncIterator[TrainingProcess]:
        if isinstance(task, Task):
            async with training(task, self._command) as process:
                yield process
        else:
            async with self._met, training(task, self._federated_command) as process:
                yield process

    async def _follow(self, job: Job, process: TrainingProcess) -> Refused | Trained | None:
        """What it said last; None if it died."""
        points: list[Point] = []
        flushed, saved = self._clock.now(), job.checkpoint

        async def flush() -> None:
            nonlocal flushed
            if points:
                await self._jobs.add_points(job.lease, points)
                points.clear()
            flushed = self._clock.now()

        silent = self._pace.hung_seconds
        if job.federation is not None:  # a round is heard of when it is over
            silent += MOST_ATTEMPTS * job.federation.deadline_seconds
        async for news in process.news(silent_seconds=silent):
            if isinstance(news, Point):
                points.append(news)
                if self._clock.now() - flushed >= FLUSH_SECONDS:
                    await flush()
                continue
            await flush()
            if not isinstance(news, Checkpoint):
                return news
            await self._jobs.save(job.lease, news)
            if saved:  # nobody goes on from it any more
                (self._tasks.folder_of(job) / saved).unlink(missing_ok=True)
            saved = news.name
        await flush()
        return None

    async def _publish(self, job: Job) -> None:
        result = self._tasks.folder_of(job) / job.checkpoint
        if not result.is_dir():  # another trainer's folder, or somebody tidied by hand
            await self._fail(job, f"what it has learnt is gone: there is no {result}")
            return
        version = await self._until_there(job, partial(publish, self._store, job, result))
        if version is not None:
            await self._jobs.succeeded(job.lease, version)
            self._over(job, JobState.SUCCEEDED)

    async def _until_there(self, job: Job, ask: Callable[[], Awaitable[T]]) -> T | None:
        """None if it was refused for good, and so the job has failed. Waits for who is away."""
        while True:
            try:
                return await ask()
            except FOR_GOOD as error:
                await self._fail(job, error.message)
                return None
            except ServingError as error:
                log.warning("store_away", job=job.id, why=error.message)
            await asyncio.sleep(self._pace.retry_seconds)

    async def _fail(self, job: Job, why: str) -> None:
        await self._jobs.failed(job.lease, why)
        self._over(job, JobState.FAILED, why=why)

    def _over(self, job: Job, state: JobState, **facts: str) -> None:
        self._ended(state)
        log.info("job_over", job=job.id, state=state.value, **facts)


@contextlib.contextmanager
def _logged(event: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        log.exception(event)
