"""What the client's tests share: a gate behind a real socket, with the desk's own tools beside Stripe's."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bypass"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "connectors"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gate"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "server"))

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from face import TOKEN, OneToken
from observed import make_desk
from rig import AGENT, TOOL, Provider, args_for, signed_answer, unsound, waiting

import countermark
from countermark.model.values import Result
from countermark.server import Listener
from countermark.wiring import ServeLimits, ServeSettings
from countermark.wiring.init import Made


@dataclass
class FarGate:
    """A served deployment. ``near`` is the same one as its own process holds it."""

    root: Path
    made: Made
    provider: Provider
    near: countermark.Deployment
    url: str

    def client(self, token: str = TOKEN, **more: object) -> countermark.Client:
        return countermark.Client(self.url, token, **more)  # type: ignore[arg-type]

    def approve(self) -> None:
        for parked in waiting(self.near):
            self.near.call("answer", signed_answer(self.made, parked))


@contextmanager
def far_gate(
    root: Path, provider: Provider | None = None, limits: Mapping[str, int] | None = None, pem: Path | None = None
) -> Iterator[FarGate]:
    """Serve a new deployment on loopback; when it is left, its journal is checked."""
    provider = provider or Provider()
    made = make_desk(root, provider)
    settings = ServeSettings(port=0, limits=replace(ServeLimits(), **(limits or {})), tls_cert=pem, tls_key=pem)
    near = countermark.open(root, agent=AGENT, connectors={"stripe": provider}, tier="enforcing")
    try:
        listener = Listener(near, OneToken(), settings)
        url = listener.start()
        try:
            yield FarGate(root, made, provider, near, url)
        finally:
            listener.stop()
    finally:
        near.close()
    assert unsound(root) == []


def pay(client: countermark.Client, number: object, amount: int = 1_000, **more: object) -> Result:
    """Pay an invoice under a call_id of its own."""
    return client.act(TOOL, args_for(number, amount), call_id=f"pay-{number}", **more)  # type: ignore[arg-type]


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate and its key for a name, in one file of the owner's alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    cert = builder.not_valid_after(datetime(2100, 1, 1, tzinfo=UTC)).sign(key, hashes.SHA256())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{name}.pem"
    path.write_bytes(key.private_bytes(*form) + cert.public_bytes(serialization.Encoding.PEM))
    path.chmod(0o600)
    return path
