"""``[[notify]]`` of ``countermark.toml``: where people are told what waits for them. Secrets only by reference."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from countermark.model.errors import ConfigError
from countermark.model.values import NAME
from countermark.net import is_loopback_name, networks_of, origin_of
from countermark.notify import EVENTS, serves
from countermark.wiring.custody import FORMS, is_reference

CHANNELS_MAX = 16
SECRETS_MAX = 4
NAMES_MAX = 64
RECIPIENTS_MAX = 32
USER_CHARS_MAX = 256
PORT_MAX = 65_535
TLS_PORTS = {"starttls": 587, "tls": 465, "none": 25}
FORMATS = ("json", "cloudevents")
SLACK_ORIGIN = "https://hooks.slack.com"

_COMMON = frozenset(("name", "kind", "ladders", "roles", "events", "allow_addresses"))
_KEYS: Mapping[str, frozenset[str]] = {
    "webhook": _COMMON | {"url", "secrets", "format"},
    "slack": _COMMON | {"secret", "origin"},
    "smtp": _COMMON | {"host", "port", "tls", "user", "secret", "from", "to"},
}
_CHANNEL = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_HOST = re.compile(r"[a-z0-9.-]{1,253}")
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,10}")
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,260}/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]{0,1024}")


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """One channel. ``options`` are the keys of its kind, checked; ``references`` are what ``secret(s)`` refer to."""

    name: str
    kind: str
    options: Mapping[str, Any]
    references: tuple[str, ...]
    ladders: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    allow_addresses: tuple[str, ...] = ()

    def takes_ladder(self, ladder: str, roles: frozenset[str]) -> bool:
        """Whether somebody is asked by it when this ladder is."""
        return serves(self.ladders, self.roles, ladder, roles) and (not self.events or "asked" in self.events)


def read_notify(section: object, file: str) -> tuple[ChannelSettings, ...]:
    """The channels, in their order. Raises ``ConfigError`` naming the file, the channel and the wrong key."""
    if type(section) is not list or len(section) > CHANNELS_MAX or not all(isinstance(one, dict) for one in section):
        raise ConfigError(f"{file}: notify is a list of at most {CHANNELS_MAX} tables", hint="Write [[notify]].")
    found = tuple(_read(table, file) for table in section)
    if len({channel.name for channel in found}) != len(found):
        raise ConfigError(f"{file}: two channels of notify have the same name")
    return found


def _read(table: Mapping[str, Any], file: str) -> ChannelSettings:
    name, kind = table.get("name"), table.get("kind")
    if type(name) is not str or _CHANNEL.fullmatch(name) is None:
        raise ConfigError(f"{file}: a channel of notify needs a name of 1 to 40 of a-z 0-9 -")
    where = f"{file}: notify {name}"
    if type(kind) is not str or kind not in _KEYS:
        raise ConfigError(f"{where}: kind must be one of: {', '.join(_KEYS)}")
    if unknown := table.keys() - _KEYS[kind]:
        raise ConfigError(f"{where}: unknown key {min(unknown)}", hint=f"Known: {', '.join(sorted(_KEYS[kind]))}.")
    allowed = _strings(table, "allow_addresses", where)
    try:
        networks_of(allowed)
        options, references = _READERS[kind](table, where)
    except ConfigError as error:
        message = error.message if error.message.startswith(where) else f"{where}: {error.message}"
        raise ConfigError(message, hint=error.hint) from None
    if any(not is_reference(reference) for reference in references):
        raise ConfigError(f"{where}: a secret must be {FORMS}, never the secret itself")
    events = _strings(table, "events", where)
    if unknown := set(events) - set(EVENTS):
        raise ConfigError(f"{where}: there is no event {min(unknown)}", hint=f"Known: {', '.join(EVENTS)}.")
    ladders, roles = _names(table, "ladders", where), _names(table, "roles", where)
    return ChannelSettings(name, kind, options, references, ladders, roles, frozenset(events), tuple(allowed))


def _webhook(table: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    url, secrets, format_ = table.get("url"), table.get("secrets"), table.get("format", "json")
    if type(url) is not str or _URL.fullmatch(url) is None:
        raise ConfigError(f"{where}: url must be https://HOST/PATH, without a fragment")
    origin_of("/".join(url.split("/")[:3]))
    if type(secrets) is not list or not 0 < len(secrets) <= SECRETS_MAX:
        raise ConfigError(f"{where}: secrets must be a list of 1 to {SECRETS_MAX} references, every one of which signs")
    if format_ not in FORMATS:
        raise ConfigError(f"{where}: format must be one of: {', '.join(FORMATS)}")
    return {"url": url, "format": format_}, tuple(secrets)


def _slack(table: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    origin = table.get("origin", SLACK_ORIGIN)
    if type(origin) is not str:
        raise ConfigError(f"{where}: origin must be https://HOST")
    return {"origin": origin_of(origin)}, (table.get("secret", ""),)


def _smtp(table: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    host, mode, user = table.get("host"), table.get("tls", "starttls"), table.get("user", "")
    sender, to = table.get("from"), _strings(table, "to", where)
    if type(host) is not str or _HOST.fullmatch(host) is None:
        raise ConfigError(f"{where}: host must be the name or the address of a mail server")
    if mode not in TLS_PORTS:
        raise ConfigError(f"{where}: tls must be one of: {', '.join(TLS_PORTS)}")
    if mode == "none" and not is_loopback_name(host):
        raise ConfigError(f"{where}: mail goes in clear only to this machine", hint='Set tls = "starttls" or "tls".')
    port = table.get("port", TLS_PORTS[mode])
    if type(port) is not int or not 0 < port <= PORT_MAX:
        raise ConfigError(f"{where}: port must be an integer from 1 to {PORT_MAX}")
    if (
        type(user) is not str
        or bool(user) != ("secret" in table)
        or not user.isprintable()
        or len(user) > USER_CHARS_MAX
    ):
        raise ConfigError(f"{where}: user and secret go together")
    addresses = [sender, *to]
    if not 0 < len(to) <= RECIPIENTS_MAX or any(type(a) is not str or not _ADDRESS.fullmatch(a) for a in addresses):
        raise ConfigError(f"{where}: from is an address like gate@example.com, to a list of 1 to {RECIPIENTS_MAX}")
    options = {"host": host, "port": port, "mode": mode, "user": user, "sender": sender, "to": tuple(to)}
    return options, (table["secret"],) if user else ()


_READERS: Mapping[str, Callable[[Mapping[str, Any], str], tuple[dict[str, Any], tuple[str, ...]]]] = {
    "webhook": _webhook, "slack": _slack, "smtp": _smtp,
}  # fmt: skip


def _strings(table: Mapping[str, Any], key: str, where: str) -> Sequence[str]:
    value = table.get(key, [])
    if type(value) is not list or len(value) > NAMES_MAX or any(type(one) is not str for one in value):
        raise ConfigError(f"{where}: {key} must be a list of at most {NAMES_MAX} strings")
    return value


def _names(table: Mapping[str, Any], key: str, where: str) -> frozenset[str]:
    value = _strings(table, key, where)
    if any(NAME.fullmatch(one) is None for one in value):
        raise ConfigError(f"{where}: {key} takes names of the policy")
    return frozenset(value)
