"""Hosts of our own on one machine: network namespaces on a bridge, and links that go dead.

A link is cut by giving both ends a wrong hardware address of each other: what is sent is lost on
the way, and nobody is told. All of it lives in namespaces of this process, and ends with it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

INSIDE = "LORIKEET_OWN_NAMESPACES"
NOBODY = "02:00:00:00:00:00"
HUB = "10.77.0.1"


def go_inside() -> None:
    """Begins this program anew in namespaces of its own, unless that was done."""
    if os.environ.get(INSIDE):
        _do("mount", "-t", "tmpfs", "tmpfs", "/run")  # where ip keeps names of namespaces
        return
    os.environ[INSIDE] = "1"
    own = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    root = () if os.geteuid() == 0 else ("--map-root-user",)
    module = __package__ + "." + os.path.basename(sys.argv[0]).removesuffix(".py")
    os.execvp("unshare", ["unshare", *own, *root, sys.executable, "-m", module, *sys.argv[1:]])


class Network:
    """Each host has an address; we are at the hub, which reaches all of them."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._addresses = {host: f"10.77.0.{n}" for n, host in enumerate(hosts, 2)}
        _do("ip", "link", "set", "lo", "up")
        _do("ip", "link", "add", "hub", "type", "bridge")
        _do("ip", "address", "add", f"{HUB}/24", "dev", "hub")
        _do("ip", "link", "set", "hub", "up")
        for host, address in self._addresses.items():
            _do("ip", "netns", "add", host)
            _do("ip", "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host)
            _do("ip", "link", "set", host, "master", "hub", "up")
            _do("ip", "-n", host, "address", "add", f"{address}/24", "dev", "eth0")
            _do("ip", "-n", host, "link", "set", "eth0", "up")
            _do("ip", "-n", host, "link", "set", "lo", "up")

    def at(self, host: str, port: int) -> str:
        return f"{self._addresses[host]}:{port}"

    def within(self, host: str) -> tuple[str, ...]:
        """What runs a command there."""
        return ("ip", "netns", "exec", host)

    def cut(self, one: str, others: Sequence[str]) -> None:
        for other in others:
            self._blind(one, other)
            self._blind(other, one)

    def heal(self, one: str, others: Sequence[str]) -> None:
        for other in others:
            self._see(one, other)
            self._see(other, one)

    def _blind(self, host: str, other: str) -> None:
        where = (self._addresses[other], "dev", "eth0")
        _do("ip", "-n", host, "neigh", "replace", *where, "lladdr", NOBODY, "nud", "permanent")

    def _see(self, host: str, other: str) -> None:
        _do("ip", "-n", host, "neigh", "del", self._addresses[other], "dev", "eth0")


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
