"""RFC 3161 tokens from the standards alone: DER (X.690), CMS SignedData (RFC 5652) and TSTInfo (RFC 3161).

Keys and signatures are the same on every machine: ECDSA with the nonce of RFC 6979.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_SHA256 = "2.16.840.1.101.3.4.2.1"
_ECDSA_SHA256 = "1.2.840.10045.4.3.2"
_SIGNED_DATA = "1.2.840.113549.1.7.2"
_TST_INFO = "1.2.840.113549.1.9.16.1.4"
_CONTENT_TYPE = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
_SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.47"
_POLICY = "1.3.6.1.4.1.32473.1"  # under the enterprise number for examples (RFC 5612)


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def sequence(*parts: bytes) -> bytes:
    return tlv(0x30, *parts)


def set_of(*parts: bytes) -> bytes:
    return tlv(0x31, *sorted(parts))


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def oid(text: str) -> bytes:
    first, second, *rest = (int(part) for part in text.split("."))
    content = bytes((first * 40 + second,))
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        content += bytes(reversed(groups))
    return tlv(0x06, content)


def _attribute(kind: str, value: bytes) -> bytes:
    return sequence(oid(kind), set_of(value))


@dataclass(frozen=True)
class Authority:
    """An authority of time with a root of its own; `stamping` is whether its certificate is for time stamps."""

    name: str
    stamping: bool = True
    until: int = 2036

    def key(self, what: str) -> ec.EllipticCurvePrivateKey:
        secret = hashlib.sha256(f"countermark test authority of time/{self.name}/{what}".encode()).digest()[:31]
        return ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())

    def _certificate(self, subject: str, number: int, *, ca: bool) -> x509.Certificate:
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, f"{self.name} root")]
        builder = (
            x509.CertificateBuilder(names[1], names[0], self.key("root" if ca else "signer").public_key(), number)
            .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2036 if ca else self.until, 1, 2, tzinfo=UTC))
        )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(True, None), True)
        else:
            usage = ExtendedKeyUsageOID.TIME_STAMPING if self.stamping else ExtendedKeyUsageOID.CODE_SIGNING
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), True)
        return builder.sign(self.key("root"), SHA256(), ecdsa_deterministic=True)

    @property
    def root(self) -> x509.Certificate:
        return self._certificate(f"{self.name} root", 1, ca=True)

    @property
    def pem(self) -> str:
        return self.root.public_bytes(Encoding.PEM).decode("ascii")

    def token(
        self, text: bytes, at_us: int, accuracy_s: int = 1, nonce: int = 7, altered_us: int | None = None
    ) -> bytes:
        """A token over `text`; with `altered_us` the time in it is changed after it was signed."""
        imprint = hashlib.sha256(text).digest()
        signed = self._info(imprint, at_us, accuracy_s, nonce)
        return self.signed(signed, signed if altered_us is None else self._info(imprint, altered_us, accuracy_s, nonce))

    def over(self, imprint: bytes, at_us: int, nonce: int) -> bytes:
        """A token over what has this SHA-256."""
        info = self._info(imprint, at_us, 1, nonce)
        return self.signed(info, info)

    def signed(self, signed: bytes, shown: bytes) -> bytes:
        """A token that shows one TSTInfo under the signature of another, which is mostly the same."""
        signer = self._certificate(f"{self.name} signer", 2, ca=False)
        certificate = signer.public_bytes(Encoding.DER)
        identity = sequence(sequence(sequence(tlv(0x04, hashlib.sha256(certificate).digest()))))
        attributes = sorted(
            (
                _attribute(_CONTENT_TYPE, oid(_TST_INFO)),
                _attribute(_MESSAGE_DIGEST, tlv(0x04, hashlib.sha256(signed).digest())),
                _attribute(_SIGNING_CERTIFICATE, identity),
            )
        )
        # RFC 5652 section 5.4: what is signed is the SET OF, what stands in the message has the tag [0].
        signature = self.key("signer").sign(set_of(*attributes), ec.ECDSA(SHA256(), deterministic_signing=True))
        info = sequence(
            integer(1),
            sequence(signer.issuer.public_bytes(), integer(signer.serial_number)),
            sequence(oid(_SHA256)),
            tlv(0xA0, *attributes),
            sequence(oid(_ECDSA_SHA256)),
            tlv(0x04, signature),
        )
        content = sequence(oid(_TST_INFO), tlv(0xA0, tlv(0x04, shown)))
        data = sequence(integer(3), set_of(sequence(oid(_SHA256))), content, tlv(0xA0, certificate), set_of(info))
        return sequence(oid(_SIGNED_DATA), tlv(0xA0, data))

    @staticmethod
    def _info(imprint: bytes, at_us: int, accuracy_s: int, nonce: int) -> bytes:
        when = datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y%m%d%H%M%SZ")
        stamped = sequence(sequence(oid(_SHA256)), tlv(0x04, imprint))
        accuracy = sequence(integer(accuracy_s))
        return sequence(
            integer(1), oid(_POLICY), stamped, integer(41), tlv(0x18, when.encode()), accuracy, integer(nonce)
        )


def response(token: bytes) -> bytes:
    """A TimeStampResp with the status `granted`."""
    return sequence(sequence(integer(0)), token)
