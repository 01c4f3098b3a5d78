"""What nodes and SuperLinks prove themselves by."""

import ssl
import stat
from pathlib import Path
from socket import socketpair
from threading import Thread

import pytest

from services.core.errors import FailedPrecondition
from services.trainer.federation import Federation, Participant
from services.trainer.flower_driver.certificates import authority, certificates, new_node_key
from services.trainer.flower_driver.environment import QUIET, Flower


def _mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def _handshake(folder: Path, trusted: Path, host: str) -> None:
    """Raises SSLError on the client's side."""
    made = certificates(folder, ["127.0.0.1", "links.example"], server="link")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    client = ssl.create_default_context(cafile=str(trusted))
    ours, theirs = socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=host).close()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "links.example"])
def test_a_server_proves_itself_by_the_folders_authority(tmp_path: Path, host: str) -> None:
    _handshake(tmp_path, authority(tmp_path), host)


def test_nobody_else_does(tmp_path: Path) -> None:
    other = authority(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(tmp_path / "one", other, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'evil.example'"):
        _handshake(tmp_path / "one", authority(tmp_path / "one"), "evil.example")


def test_an_authority_is_made_once_and_secrets_are_its_owners(tmp_path: Path) -> None:
    before = authority(tmp_path).read_bytes()
    made = certificates(tmp_path, ["127.0.0.1"], server="link")
    assert made.authority.read_bytes() == before
    assert _mode(made.key) == _mode(tmp_path / "ca.key") == 0o600


def test_a_nodes_key_is_one_that_a_federation_takes(tmp_path: Path) -> None:
    line = new_node_key(tmp_path / "site")
    assert (tmp_path / "site.pub").read_text() == line + "\n"
    assert _mode(tmp_path / "site") == 0o600
    Federation.asked([Participant("site", line)])
    with pytest.raises(FileExistsError):
        new_node_key(tmp_path / "site")


def test_where_flower_is_not_it_is_said_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="`make flower` makes it"):
        Flower.found(tmp_path)


def test_flowers_programs_hear_of_no_secrets_and_tell_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_SERVICE_TOKEN", "secret")
    known = Flower(tmp_path / "venv").environment(tmp_path)
    assert "secret" not in known.values()
    assert known.items() >= QUIET.items()
    assert (QUIET["FLWR_TELEMETRY_ENABLED"], QUIET["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
    assert known["PATH"].startswith(str(tmp_path / "venv" / "bin"))
