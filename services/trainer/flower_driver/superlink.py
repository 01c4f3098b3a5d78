"""A SuperLink of our own: started for one job, told who may dial in, asked to run the app."""

import json
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from services.core.errors import FailedPrecondition, Unavailable
from services.trainer.federation import Participant
from services.trainer.flower_driver.certificates import Certificates, certificates
from services.trainer.flower_driver.environment import Flower
from services.trainer.flower_driver.processes import Child, child

START_SECONDS = 120.0
AT_ONCE = 4
CONNECTION = "job"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class SuperLink:
    """`folder`: of this running of it, with its logs."""

    flower: Flower
    folder: Path
    process: Child
    environment: dict[str, str]

    def register(self, participants: tuple[Participant, ...]) -> dict[str, int]:
        """By name, the number of each one's node. Nobody else is let in."""
        with ThreadPoolExecutor(AT_ONCE) as pool:  # each is a process that takes seconds
            numbers = list(pool.map(self._register, participants))
        return {each.name: number for each, number in zip(participants, numbers, strict=True)}

    def start_run(self, app: Path) -> Child:
        """Ends with the run."""
        command = [str(self.flower.program("flwr")), "run", str(app), CONNECTION, "--stream"]
        log = self.folder / "run.log"
        return Child("the run", command, environment=self.environment, log=log)

    def _register(self, participant: Participant) -> int:
        """Raises FailedPrecondition."""
        key = self.folder / f"{participant.name}.pub"
        key.write_text(participant.public_key + "\n")
        program = str(self.flower.program("flwr"))
        done = subprocess.run(
            [program, "supernode", "register", str(key), CONNECTION, "--format", "json"],
            env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        try:
            return int(json.loads(done.stdout[done.stdout.index("{") :])["node-id"])
        except (ValueError, KeyError) as error:
            said = " ".join((done.stdout + done.stderr).split())[-500:]
            what = f"the SuperLink does not take the key of {participant.name}: {said}"
            raise FailedPrecondition(what) from error


@contextmanager
def superlink(
    flower: Flower, folder: Path, *, address: str, certificates_folder: Path, **environment: str
) -> Iterator[SuperLink]:
    """Gone with the block; its state is in memory. Raises Unavailable if it does not come up."""
    host, _, port = address.rpartition(":")
    made = certificates(certificates_folder, [host, *LOOPBACK[:2]], server=f"superlink-{port}")
    folder.mkdir(parents=True, exist_ok=True)
    _write_connection(folder / "flwr", port, made)
    known = flower.environment(folder / "flwr", **environment)
    command = [
        str(flower.program("flower-superlink")),
        "--host", host if host in LOOPBACK else "0.0.0.0", "--port", port,
        "--ssl-ca-certfile", str(made.authority),
        "--ssl-certfile", str(made.certificate),
        "--ssl-keyfile", str(made.key),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]  # fmt: skip
    log = folder / "superlink.log"
    with child("the SuperLink", command, environment=known, log=log) as process:
        process.until(lambda: _is_healthy(port, made.authority), seconds=START_SECONDS)
        yield SuperLink(flower, folder, process, known)


def _write_connection(home: Path, port: str, made: Certificates) -> None:
    """What Flower's own command line reads."""
    home.mkdir(parents=True, exist_ok=True)
    certificate = json.dumps(str(made.authority.absolute()))
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\nroot-certificates = {certificate}\n'
    )


def _is_healthy(port: str, authority: Path) -> bool:
    """That it speaks, and proves itself by our authority."""
    context = ssl.create_default_context(cafile=str(authority))
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    try:
        with opener.open(f"https://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except HTTPError as error:
        raise Unavailable(f"the SuperLink says {error.code}") from error
    except URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            raise Unavailable(f"another server has the SuperLink's port: {error}") from error
        return False
