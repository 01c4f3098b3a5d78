"""Participants over Flower's grid: a message for each order, its reply for each answer."""

from collections.abc import Mapping, Sequence

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from services.core.errors import InvalidRequest
from services.trainer.flower.records import answer_from_records, order_to_records
from services.trainer.flower.sites import Answer, Brief, Order


class GridSites:
    """`nodes`: by participant's name, the number of the node that proved its key."""

    def __init__(self, grid: Grid, nodes: Mapping[str, int], brief: Brief) -> None:
        self._grid = grid
        self._nodes = nodes
        self._brief = brief
        self._open: dict[str, Order] = {}  # by message

    def present(self) -> frozenset[str]:
        there = set(self._grid.get_node_ids())
        return frozenset(name for name, node in self._nodes.items() if node in there)

    def ask(self, orders: Sequence[Order]) -> None:
        for order in orders:
            content = order_to_records(order, self._brief)
            node = self._nodes[order.client]
            message = Message(content, dst_node_id=node, message_type=MessageType.TRAIN)
            (pushed,) = self._grid.push_messages([message])
            self._open[str(pushed)] = order

    def answers(self) -> list[Answer]:
        found = []
        for message in self._grid.pull_messages(list(self._open)) if self._open else ():
            order = self._open.pop(message.metadata.reply_to_message_id, None)
            if order is not None:
                found.append(_answer(order, message))
        return found


def _answer(order: Order, message: Message) -> Answer:
    if message.has_error():
        return Answer.refused(order, f"its node says: {message.error.reason}")
    try:
        return answer_from_records(order, message.content)
    except InvalidRequest as error:
        return Answer.refused(order, error.message)
