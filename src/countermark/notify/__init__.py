"""Floor 4: tells people what waits for them and what became of it, by webhook, Slack and mail. It decides nothing.

Everything is derived from committed records, and nothing that a message holds is evidence or carries authority.
"""

from countermark.notify.channel import EVENTS, Channel, DeliveryError, Transport, serves
from countermark.notify.events import Event, Events, probe, roles_of
from countermark.notify.notifier import Notifier
from countermark.notify.outbox import Message, Outbox
from countermark.notify.slack import SlackTransport
from countermark.notify.smtp import Mailbox, SmtpTransport
from countermark.notify.standard import check_secret, symmetric_secret
from countermark.notify.webhook import WebhookTransport

__all__ = [
    "EVENTS",
    "Channel",
    "DeliveryError",
    "Event",
    "Events",
    "Mailbox",
    "Message",
    "Notifier",
    "Outbox",
    "SlackTransport",
    "SmtpTransport",
    "Transport",
    "WebhookTransport",
    "check_secret",
    "probe",
    "roles_of",
    "serves",
    "symmetric_secret",
]
