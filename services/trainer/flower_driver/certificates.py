"""What SuperLink and SuperNodes know each other by: a certificate authority, and keys of nodes."""

import fcntl
import ipaddress
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS, SERVER_DAYS = 3650, 365
AUTHORITY_KEY = "ca.key"


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files: of the authority, and what a server proves itself by."""

    authority: Path
    certificate: Path
    key: Path


def certificates(folder: Path, hosts: Iterable[str], *, server: str) -> Certificates:
    """Of a server by that name, whose key is made each time."""
    found = Certificates(authority(folder), folder / f"{server}.crt", folder / f"{server}.key")
    signer = serialization.load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(found.authority.read_bytes())
    key = ec.generate_private_key(ec.SECP384R1())
    _write_key(found.key, key)
    _write(found.certificate, _pem(_server(key, issuer, signer, sorted(set(hosts)))))
    return found


def authority(folder: Path) -> Path:
    """The folder's own, which is made once."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "ca.crt"
    with _alone(folder):
        if not file.exists():
            key = ec.generate_private_key(ec.SECP384R1())
            _write_key(folder / AUTHORITY_KEY, key)
            _write(file, _pem(_authority(key)))
    return file


def new_node_key(file: Path) -> str:
    """Writes a SuperNode's private key, readable by its owner only, and beside it FILE.pub, whose
    line this is. Raises FileExistsError."""
    key = ec.generate_private_key(ec.SECP384R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    if file.exists():
        raise FileExistsError(f"{file} is there already")
    _write(file, secret, mode=0o600)
    line = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    _write(file.with_name(file.name + ".pub"), line + b"\n")
    return line.decode()


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("Lorikeet federation")
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        _builder(name, name, key, days=CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA384())
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
) -> x509.Certificate:
    by_authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        _builder(_name(hosts[0]), issuer.subject, key, days=SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(by_authority, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(each) for each in hosts]), critical=False)
        .sign(signer, hashes.SHA384())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(file, pem, mode=0o600)


def _write(file: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Whole or not at all, and never readable by others for a moment."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(number, "wb") as out:
        out.write(content)
    draft.replace(file)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of all processes on this folder."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
