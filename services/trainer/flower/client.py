"""Flower's ClientApp of a federated job."""

from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from services.core.errors import ServingError
from services.trainer.flower.records import answer_to_records, order_from_records
from services.trainer.flower.site import Site, work
from services.trainer.flower.sites import Answer

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    order, brief = order_from_records(message.content)
    try:
        answer = work(_site(context.node_config), order, brief)
    except ServingError as error:
        answer = Answer.refused(order, error.message)
    return Message(answer_to_records(answer), reply_to=message)


def _site(told: Any) -> Site:
    return Site(
        name=str(told["site"]),
        data=Path(str(told["data"])),
        base=Path(str(told["base"])),
        fingerprint=str(told["fingerprint"]),
        threads=int(told.get("threads", 0)),
    )
