"""Floor 6: from ``countermark.toml`` to objects. What few commands need is loaded when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from countermark.wiring.access import TokenFile
from countermark.wiring.config import Config, load_config, owner_lives, resolve_secret
from countermark.wiring.deployment import Deployment, open_deployment, read_key
from countermark.wiring.init import Made, init_deployment
from countermark.wiring.issuers import Issuer
from countermark.wiring.settings import ServeLimits, ServeSettings, is_loopback

if TYPE_CHECKING:
    from countermark.wiring.backup import make_backup, newest_backup
    from countermark.wiring.connectors import without_secret
    from countermark.wiring.host import disciplined, exposed, growth, syncing
    from countermark.wiring.live import check_seats, credentials, is_live
    from countermark.wiring.log_keys import log_signer, prepare_next, retire, second_signer
    from countermark.wiring.logs import configure_logs
    from countermark.wiring.notices import Notices, channel_fault, owner_call, try_channel
    from countermark.wiring.offered import fetch_offer
    from countermark.wiring.process import own_the_process
    from countermark.wiring.restore import restore_backup
    from countermark.wiring.triggering import startable
    from countermark.wiring.workflow_settings import secrets_of

__all__ = [
    "Config",
    "Deployment",
    "Issuer",
    "Made",
    "Notices",
    "ServeLimits",
    "ServeSettings",
    "TokenFile",
    "channel_fault",
    "check_seats",
    "configure_logs",
    "credentials",
    "disciplined",
    "exposed",
    "fetch_offer",
    "growth",
    "init_deployment",
    "is_live",
    "is_loopback",
    "load_config",
    "log_signer",
    "make_backup",
    "newest_backup",
    "open_deployment",
    "own_the_process",
    "owner_call",
    "owner_lives",
    "prepare_next",
    "read_key",
    "resolve_secret",
    "restore_backup",
    "retire",
    "second_signer",
    "secrets_of",
    "startable",
    "syncing",
    "try_channel",
    "without_secret",
]

_LATE = {
    "Notices": "countermark.wiring.notices",
    "channel_fault": "countermark.wiring.notices",
    "owner_call": "countermark.wiring.notices",
    "try_channel": "countermark.wiring.notices",
    "make_backup": "countermark.wiring.backup",
    "newest_backup": "countermark.wiring.backup",
    "without_secret": "countermark.wiring.connectors",
    "disciplined": "countermark.wiring.host",
    "exposed": "countermark.wiring.host",
    "growth": "countermark.wiring.host",
    "syncing": "countermark.wiring.host",
    "check_seats": "countermark.wiring.live",
    "credentials": "countermark.wiring.live",
    "is_live": "countermark.wiring.live",
    "fetch_offer": "countermark.wiring.offered",
    "configure_logs": "countermark.wiring.logs",
    "log_signer": "countermark.wiring.log_keys",
    "prepare_next": "countermark.wiring.log_keys",
    "retire": "countermark.wiring.log_keys",
    "second_signer": "countermark.wiring.log_keys",
    "own_the_process": "countermark.wiring.process",
    "restore_backup": "countermark.wiring.restore",
    "startable": "countermark.wiring.triggering",
    "secrets_of": "countermark.wiring.workflow_settings",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(name)
