"""Flower's SuperNode, whose end is noticed in 20 seconds: with Flower's own beats it takes up to a
minute, in which a round waits for an update that is lost, and the node is not let in again."""

import sys

from flwr.supercore import heartbeat
from flwr.supernode import fleet_http_connection
from flwr.supernode.cli import flower_supernode

BEAT_SECONDS = 10  # the least that a SuperLink takes; it is patient for two of them

if __name__ == "__main__":
    # There is no option for it. Beats of tasks, which others check, stay as they are.
    for module in (heartbeat, fleet_http_connection):
        module.HEARTBEAT_DEFAULT_INTERVAL = BEAT_SECONDS
    sys.exit(flower_supernode())
