"""One federated job over Flower: SuperLink, nodes that may dial in, the run, and its news."""

from collections.abc import Iterator

from services.core.errors import Unavailable
from services.trainer.flower.news import follow
from services.trainer.flower.run_file import VARIABLE, RunFile
from services.trainer.flower_driver.app_folder import write_app
from services.trainer.flower_driver.environment import Flower
from services.trainer.flower_driver.superlink import superlink
from services.trainer.task import FederatedTask, News, Refused, Trained


def drive(task: FederatedTask) -> Iterator[News]:
    """Raises Unavailable if it may go well another time, or another ServingError."""
    flower = Flower.found(task.meeting.flower)
    folder = task.folder / f"{task.prefix}flower"
    file, news = (folder / "run.json").absolute(), (folder / "news.jsonl").absolute()
    news.unlink(missing_ok=True)  # of a process before, under the same lease
    with superlink(
        flower,
        folder,
        address=task.meeting.address,
        certificates_folder=task.meeting.folder,
        **{VARIABLE: str(file)},
    ) as link:
        nodes = link.register(task.federation.participants)
        RunFile(task, nodes, news).write(file)
        run = link.start_run(write_app(folder / "app"))
        try:
            for each in follow(news, lambda: run.is_alive and link.process.is_alive):
                yield each
                if isinstance(each, Trained | Refused):
                    return
            failed = run if link.process.is_alive else link.process
            raise Unavailable(failed.post_mortem())
        finally:
            run.kill()
