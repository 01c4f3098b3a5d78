"""The process that trains one job: a task on standard input, news on standard output.

It ends when its standard input does: without a trainer nobody would hear of what it learnt.
"""

import os
import sys
import threading
from typing import TextIO

from services.core.errors import ServingError
from services.trainer.task import Refused, Task, news_to_json


def main() -> None:
    news = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is for the logs
    task = Task.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    os.nice(NICENESS)
    try:
        _train(task, news)
    except ServingError as error:
        _tell(news, news_to_json(Refused(error.message)))


def _train(task: Task, news: TextIO) -> None:
    # Whatever can be said before torch is loaded has been.
    from services.trainer.training.beginning import begin  # noqa: PLC0415

    for each in begin(task).run():
        _tell(news, news_to_json(each))


def _tell(news: TextIO, line: str) -> None:
    news.write(line + "\n")
    news.flush()


def _end_with_the_trainer() -> None:
    sys.stdin.read()
    os._exit(0)


NICENESS = 10  # whoever serves on this machine goes first

if __name__ == "__main__":
    main()
