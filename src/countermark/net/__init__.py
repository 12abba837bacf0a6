"""Floor 3: sending to the outside, for connectors and notifications alike: one origin, checked addresses, bounds."""

from countermark.net.addresses import Network, address_of, may_reach, networks_of
from countermark.net.dial import DeadlineReader, LostError, NotSentError, dial, is_loopback_name
from countermark.net.http_send import ANSWER_BYTES_MAX, Answer, Sender, origin_of

__all__ = [
    "ANSWER_BYTES_MAX",
    "Answer",
    "DeadlineReader",
    "LostError",
    "Network",
    "NotSentError",
    "Sender",
    "address_of",
    "dial",
    "is_loopback_name",
    "may_reach",
    "networks_of",
    "origin_of",
]
