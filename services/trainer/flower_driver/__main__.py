"""The process that drives one federated job: a task on standard input, news on standard output.

It ends when its standard input does, and everything that it started with it.
"""

import os
import signal
import sys
import threading

from services.core.errors import ServingError, Unavailable
from services.trainer.flower_driver.driving import drive
from services.trainer.task import FederatedTask, Refused, news_to_json


def main() -> None:
    news = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what programs print is for the logs
    task = FederatedTask.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()

    def tell(line: str) -> None:
        news.write(line + "\n")
        news.flush()

    try:
        for each in drive(task):
            tell(news_to_json(each))
    except Unavailable as error:  # it may go well the next time
        sys.exit(error.message)
    except ServingError as error:
        tell(news_to_json(Refused(error.message)))


def _end_with_the_trainer() -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
