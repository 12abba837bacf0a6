"""Floor 6: from ``countermark.toml`` to objects. Each part is loaded when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from countermark.wiring.access import TokenFile
    from countermark.wiring.backup import make_backup, newest_backup
    from countermark.wiring.config import Config, load_config, owner_lives, resolve_secret
    from countermark.wiring.connectors import without_secret
    from countermark.wiring.deployment import Deployment, open_deployment, read_key
    from countermark.wiring.host import disciplined, exposed, growth, syncing
    from countermark.wiring.init import Made, init_deployment
    from countermark.wiring.issuers import Issuer
    from countermark.wiring.live import check_seats, credentials, is_live
    from countermark.wiring.log_keys import log_signer, prepare_next, retire, second_signer
    from countermark.wiring.logs import configure_logs
    from countermark.wiring.notices import Notices, channel_fault, owner_call, try_channel
    from countermark.wiring.offered import fetch_offer
    from countermark.wiring.process import own_the_process
    from countermark.wiring.restore import restore_backup
    from countermark.wiring.settings import ServeLimits, ServeSettings, is_loopback
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

_WHERE = {
    "Config": "config",
    "Deployment": "deployment",
    "Issuer": "issuers",
    "Made": "init",
    "Notices": "notices",
    "ServeLimits": "settings",
    "ServeSettings": "settings",
    "TokenFile": "access",
    "channel_fault": "notices",
    "check_seats": "live",
    "configure_logs": "logs",
    "credentials": "live",
    "disciplined": "host",
    "exposed": "host",
    "fetch_offer": "offered",
    "growth": "host",
    "init_deployment": "init",
    "is_live": "live",
    "is_loopback": "settings",
    "load_config": "config",
    "log_signer": "log_keys",
    "make_backup": "backup",
    "newest_backup": "backup",
    "open_deployment": "deployment",
    "own_the_process": "process",
    "owner_call": "notices",
    "owner_lives": "config",
    "prepare_next": "log_keys",
    "read_key": "deployment",
    "resolve_secret": "config",
    "restore_backup": "restore",
    "retire": "log_keys",
    "second_signer": "log_keys",
    "secrets_of": "workflow_settings",
    "startable": "triggering",
    "syncing": "host",
    "try_channel": "notices",
    "without_secret": "connectors",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"countermark.wiring.{_WHERE[name]}"), name)
    raise AttributeError(name)
