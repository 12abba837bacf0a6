"""Fields that the bodies of several kinds of records have (docs/spec/record.md)."""

from typing import Any

from countermark_verify.crypto import PASSKEY, PASSKEY_CHARS_MAX
from countermark_verify.shape import const, either, fixed, integer, maybe, record, text

DIGEST = text(r"sha256:[0-9a-f]{64}")
AGENT_KEY = text(r"ed25519:[A-Za-z0-9+/]{43}=")
KEY = either(text(PASSKEY.pattern, PASSKEY_CHARS_MAX), AGENT_KEY)
_URL64 = r"[A-Za-z0-9_-]+"
SIGNATURE = either(
    record(
        {
            "authenticator_data": text(_URL64, 1_366),
            "client_data": text(_URL64, 5_462),
            "signature": text(_URL64, 171),
        }
    ),
    text(r"[A-Za-z0-9+/]{86}=="),
)
HEX32 = text(r"[0-9a-f]{32}")
ACTION_ID = text(r"act_[0-9a-f]{32}")
ESCALATION_ID = text(r"esc_[0-9a-f]{32}")
KILL_ID = text(r"kill_[0-9a-f]{16}")
NATURAL = integer(0)
NAME = text(r"[^\x00-\x1f]+", chars_max=1_000)
TEXT = text()
# Who read records: a user of the gate's machine, or a person.
READER = text(r"uid:(?:0|[1-9][0-9]{0,9})|person:[^\x00-\x1f]+", chars_max=1_007)
_WORDS = text(r"[^\x00-\x08\x0b-\x1f\x7f]*", chars_max=500)
LABEL = text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", chars_max=64)
REF = text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", chars_max=256)
SEALED = record({"$sd": DIGEST})
ALIAS = r"[A-Za-z0-9_.$-]{1,64}"


def words(value: Any) -> str:
    """Words that a person signed: not only white space."""
    return _WORDS(value) or ("" if value.strip() else ": no words")


TERMS = record({"amount": maybe(NATURAL), "currency": maybe(NAME), "payee": maybe(NAME)})
TIER = const("enforcing", "embedded", "observing")

SIGNATURE_OF = record({"person": NAME, "key": KEY, "sig": SIGNATURE})
FOUR_EYES = fixed(SIGNATURE_OF, SIGNATURE_OF)
PAIRS_MAX = 64  # of a business key
