"""``limits.toml`` and ``ladders.toml``: people, agents, payees, and the numbers of hour one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from countermark.authority import KEYS_MAX, PRINCIPAL, Ap2Source, Key, PublicKey, is_origin, parse_key
from countermark.model.canon import INTEGER_ABS_MAX
from countermark.model.errors import SignatureError
from countermark.model.values import NAME
from countermark.model.words import nearest
from countermark.policy.ap2 import read_ap2
from countermark.policy.bundle import AGENT_KEYS_MAX, Agent, Payee
from countermark.policy.hours import OFFICE, BusinessHours
from countermark.policy.ladders import Ladder
from countermark.policy.read_ladders import read_ladders, warn_of_people
from countermark.policy.retention import Retention, read_retention
from countermark.policy.toml import Source, Table
from countermark.policy.witness import read_stale_after

PEOPLE_MAX = 1_024
PAYEES_MAX = 2_000
WINDOWS_MAX = 32
COOL_OFF_S_MAX = 90 * 86_400
OVER_S_MAX = 10 * 366 * 86_400
PER_FIELDS = ("agent", "run", "mandate", "tool", "payee")

_RESERVED = ("true", "false", "if", "then", "else", "in", "is", "like", "has")
_FACT_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_CURRENCY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}")
_NAME_HINT = "Use a-z, 0-9, _, . and -, at most 64, starting with a letter or digit."
_KEY_PLACEHOLDER = re.compile(r"\{\{KEY:[a-z0-9_.-]+\}\}")


@dataclass(frozen=True, slots=True)
class PersonEntry:
    """A person as ``limits.toml`` says; ``keys`` are texts, none for a person who signs nothing."""

    id: str
    name: str
    roles: tuple[str, ...]
    keys: tuple[str, ...]

    def document(self) -> dict[str, object]:
        return {"id": self.id, "name": self.name, "roles": list(self.roles), "keys": list(self.keys)}


@dataclass(frozen=True, slots=True)
class Payment:
    """Limits on each payment, in minor units. None means: not asked for."""

    max: int
    ask_above: int | None
    flag_above: int | None
    unknown_payee: str
    ladder: str
    line: int
    cool_off_s: int = 0


@dataclass(frozen=True, slots=True)
class WindowLimit:
    """A limit over a sliding window. ``per`` are the fields it is counted by."""

    name: str
    of: str
    over_s: int
    per: tuple[str, ...]
    max: int
    above: str
    line: int


@dataclass(frozen=True, slots=True)
class Hours:
    """When payments may be made: minutes of the day in the bundle's zone, ISO weekdays."""

    start: int
    end: int
    days: tuple[int, ...]
    outside: str


@dataclass
class Limits:
    """All of ``limits.toml``, as far as it could be read."""

    author: str = ""
    test: bool = False
    console: str = ""
    zone: str = "UTC"
    currencies: tuple[str, ...] = ()
    people: dict[str, PersonEntry] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    payees: dict[str, Payee] = field(default_factory=dict)
    ladders: dict[str, Ladder] = field(default_factory=dict)
    payment: Payment | None = None
    windows: list[WindowLimit] = field(default_factory=list)
    hours: Hours | None = None
    ap2: list[Ap2Source] = field(default_factory=list)
    retention: Retention | None = None
    stale_after: tuple[int, int] | None = None  # seconds, and the line of [witness]

    def asks(self) -> bool:
        """Whether any of these limits can be lifted by people."""
        payment = self.payment
        return (
            bool(
                payment is not None
                and (payment.ask_above is not None or payment.unknown_payee == "ask" or payment.cool_off_s)
            )
            or any(window.above == "ask" for window in self.windows)
            or (self.hours is not None and self.hours.outside == "ask")
        )


def read_limits(source: Source, ladders: Source | None) -> Limits:
    """Read both files; what is wrong goes to the sources' findings."""
    root = source.root()
    root.only(
        "author", "test", "console", "zone", "currencies", "people", "agents", "payees", "payment", "window", "hours",
        "ladder", "ap2", "retention", "witness",
    )  # fmt: skip
    limits = Limits()
    limits.zone = _zone(root)
    limits.currencies = _currencies(root)
    _people(root, limits)
    limits.author = root.text("author")
    limits.test = root.boolean("test", False)
    limits.console = _console(root)
    if limits.author and limits.author not in limits.people:
        root.error("author", "unknown_person", f"author {limits.author!r} is not one of [people]", nearest(
            limits.author, limits.people))  # fmt: skip
    _agents(root, limits)
    _payees(root, limits)
    _hours(root, limits)
    tables = [root] if ladders is None else [root, ladders.root()]
    for table in tables:
        if table is not root:
            table.only("ladder")
        limits.ladders |= read_ladders(table, limits.ladders, _business(limits.hours))
    _payment(root, limits)
    _windows(root, limits)
    _check_ladders(root, limits)
    _check_people(tables, limits)
    limits.retention = read_retention(root)
    principals = [person.id for person in limits.people.values() if PRINCIPAL in person.roles]
    limits.stale_after = read_stale_after(root)
    limits.ap2 = read_ap2(root, principals, limits.agents, limits.payees)
    return limits


def _business(hours: Hours | None) -> BusinessHours:
    """Business time: the hours in which payments may be made, else office hours."""
    return OFFICE if hours is None else BusinessHours(hours.start, hours.end, hours.days)


def _check_people(tables: Sequence[Table], limits: Limits) -> None:
    """Warn of rungs that cannot be answered, for each agent; somebody else might own another one."""
    able = {name: frozenset(person.roles) for name, person in limits.people.items() if person.keys}
    for table in tables:
        for name, below in table.tables("ladder"):
            if name in limits.ladders:
                warn_of_people(below, limits.ladders[name], able, limits.agents.values(), limits.author)


def _console(root: Table) -> str:
    origin = root.text("console", "")
    if origin and not is_origin(origin):
        root.error("console", "bad_value", f"{origin[:70]!r} is no address of a page where passkeys work",
                   "Write https://HOST or http://localhost, with a port or without.")  # fmt: skip
        return ""
    return origin


def _zone(root: Table) -> str:
    zone = root.text("zone", "UTC")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        root.error("zone", "bad_value", f"{zone!r} is not an IANA time zone", "Write one like Europe/Berlin.")
        return "UTC"
    return zone


def _currencies(root: Table) -> tuple[str, ...]:
    found = root.texts("currencies")
    for code in found:
        if _CURRENCY.fullmatch(code) is None:
            root.error("currencies", "bad_value", f"{code!r} is not a currency", "Write codes as the provider does.")
    if not found and "currencies" in root:
        root.error("currencies", "bad_value", "at least one currency may be moved")
    return tuple(code for code in found if _CURRENCY.fullmatch(code) is not None)


def _name_is_right(table: Table, name: str) -> bool:
    if NAME.fullmatch(name) is None:
        table.error("", "bad_name", f"{name[:70]!r} is not a valid id", _NAME_HINT)
        return False
    return True


def _people(root: Table, limits: Limits) -> None:
    owners: dict[str, str] = {}
    for name, table in root.tables("people"):
        table.only("name", "roles", "key", "keys")
        if not _name_is_right(table, name):
            continue
        keys = _person_keys(name, table, owners)
        roles = table.texts("roles", ())
        for role in roles:
            if NAME.fullmatch(role) is None:
                table.error("roles", "bad_name", f"{role[:70]!r} is not a valid role", _NAME_HINT)
        limits.people[name] = PersonEntry(name, table.text("name", name), roles, keys)
    if len(limits.people) > PEOPLE_MAX:
        root.error("people", "too_many", f"more than {PEOPLE_MAX} people")
    if not any(PRINCIPAL in person.roles and person.keys for person in limits.people.values()):
        root.error("people", "no_principal", f"nobody with a key has the role {PRINCIPAL!r}: no mandate can be granted")


def _person_keys(name: str, table: Table, owners: dict[str, str]) -> tuple[str, ...]:
    """A person's keys, none of them anybody else's: ``key = "..."`` or ``keys = [...]``."""
    if "key" in table and "keys" in table:
        table.error("keys", "duplicate", "say 'key' or 'keys', not both")
    one = table.text("key", "")
    keys = (one,) if one else table.texts("keys", ())
    for key in keys:
        _check_key(table, key, parse_key)
        if owners.setdefault(key, name) != name or keys.count(key) > 1:
            table.error("key", "shared_key", f"{name} and {owners[key]} have the same key, or one stands there twice",
                        "An approver is a person, not a key: give each their own.")  # fmt: skip
    if len(keys) > KEYS_MAX:
        table.error("keys", "too_many", f"a person has at most {KEYS_MAX} keys")
    return keys


def _check_key(table: Table, key: str, parse: Callable[[object], Key] = PublicKey.parse) -> None:
    if _KEY_PLACEHOLDER.fullmatch(key):
        table.error("key", "placeholder", "the key is still a placeholder", "Put the person's public key here.")
        return
    try:
        parse(key)
    except SignatureError as error:
        table.error("key", "bad_key", error.message, error.hint)


def _agents(root: Table, limits: Limits) -> None:
    owners = {key: name for name, person in limits.people.items() for key in person.keys}
    for name, table in root.tables("agents"):
        table.only("owner", "keys")
        owner = table.text("owner")
        if owner and owner not in limits.people:
            table.error("owner", "unknown_person", f"owner {owner!r} is not one of [people]", nearest(
                owner, limits.people))  # fmt: skip
        if _name_is_right(table, name):
            limits.agents[name] = Agent(name, owner, _agent_keys(name, table, owners))
    if not limits.agents:
        root.error("", "missing_key", "no [agents.NAME]: nobody may ask for anything")


def _agent_keys(name: str, table: Table, owners: dict[str, str]) -> tuple[str, ...]:
    """The keys with which an agent signs its requests, none of them anybody else's."""
    keys = table.texts("keys", ())
    for key in keys:
        _check_key(table, key)
        if owners.setdefault(key, name) != name or keys.count(key) > 1:
            table.error("keys", "shared_key", f"{name} and {owners[key]} have the same key, or one stands there twice",
                        "A key says who asked: give each agent and each person their own.")  # fmt: skip
    if len(keys) > AGENT_KEYS_MAX:
        table.error("keys", "too_many", f"an agent has at most {AGENT_KEYS_MAX} keys")
    return keys


def _payees(root: Table, limits: Limits) -> None:
    accounts: dict[str, str] = {}
    for name, table in root.tables("payees"):
        table.only("name", "account")
        account = table.text("account")
        if not account and "account" in table:
            table.error("account", "bad_value", "an account is not empty")
        if account and accounts.setdefault(account, name) != name:
            table.error("account", "shared_account", f"{name} and {accounts[account]} have the same account")
        if _name_is_right(table, name):
            limits.payees[name] = Payee(name, table.text("name", name), account)
    if len(limits.payees) > PAYEES_MAX:
        root.error("payees", "too_many", f"more than {PAYEES_MAX} payees")


def _ladder(table: Table, limits: Limits) -> str:
    name = table.text("ladder", "")
    if name and name not in limits.ladders:
        table.error("ladder", "unknown_ladder", f"there is no [ladder.{name}]", nearest(name, limits.ladders))
    return name


def _payment(root: Table, limits: Limits) -> None:
    if "payment" not in root:
        return
    table = root.table("payment")
    table.only("max", "ask_above", "flag_above", "unknown_payee", "ladder", "cool_off")
    most = table.integer("max", low=1)
    ask = table.maybe_integer("ask_above", low=0)
    flag = table.maybe_integer("flag_above", low=0)
    for key, value in (("ask_above", ask), ("flag_above", flag)):
        if value is not None and value >= most:
            table.error(key, "bad_value", f"{key!r} must be less than 'max', or it never applies")
    unknown = table.choice("unknown_payee", ("ask", "refuse"), "refuse")
    cool_off_s = table.duration_s("cool_off") if "cool_off" in table else 0
    if cool_off_s > COOL_OFF_S_MAX:
        table.error("cool_off", "bad_value", "a cool-off is at most 90d")
    limits.payment = Payment(most, ask, flag, unknown, _ladder(table, limits), table.line, cool_off_s)
    if len(limits.currencies) > 1:
        table.warn("max", "mixed_currencies", "one number limits payments in several currencies",
                   "Each currency's minor units count as they are.")  # fmt: skip


def _windows(root: Table, limits: Limits) -> None:
    seen: set[str] = set()
    for table in root.array("window"):
        table.only("name", "of", "over", "per", "max", "above")
        name = table.text("name", form=_FACT_NAME, form_hint="Use a-z, 0-9 and _, starting with a letter.")
        if name in _RESERVED:
            table.error("name", "bad_name", f"{name!r} is a word of the Cedar language")
        if name in seen:
            table.error("name", "duplicate", f"window {name!r} is defined twice")
        seen.add(name)
        over_s = table.duration_s("over")
        if over_s > OVER_S_MAX:
            table.error("over", "bad_value", "a window is at most ten years long")
        per = table.texts("per", ())
        for part in per:
            if part not in PER_FIELDS:
                table.error("per", "unknown_field", f"a window is not counted per {part!r}", nearest(part, PER_FIELDS))
        window = WindowLimit(
            name,
            table.choice("of", ("amount", "count"), "amount"),
            over_s,
            tuple(part for part in per if part in PER_FIELDS),
            table.integer("max", low=0, high=INTEGER_ABS_MAX),
            table.choice("above", ("refuse", "ask"), "refuse"),
            table.line,
        )
        if name:
            limits.windows.append(window)
    if len(limits.windows) > WINDOWS_MAX:
        root.error("window", "too_many", f"more than {WINDOWS_MAX} windows")


def _hours(root: Table, limits: Limits) -> None:
    if "hours" not in root:
        return
    table = root.table("hours")
    table.only("from", "to", "days", "outside")
    start, end = table.minute("from"), table.minute("to")
    if "from" in table and "to" in table and end <= start:
        table.error("to", "bad_value", "'to' must be later than 'from' on the same day")
    days: Sequence[object] = table.value.get("days", [1, 2, 3, 4, 5])
    right = type(days) is list and days and all(type(day) is int and 1 <= day <= 7 for day in days)
    if not right or len(set(days)) != len(days):
        table.error("days", "bad_value", "'days' lists weekdays, 1 is Monday and 7 is Sunday")
        days = [1]
    outside = table.choice("outside", ("ask", "refuse"), "refuse")
    limits.hours = Hours(start, end, tuple(sorted(day for day in days if type(day) is int)), outside)


def _check_ladders(root: Table, limits: Limits) -> None:
    if limits.asks() and not (limits.payment and limits.payment.ladder):
        root.error(
            "payment", "missing_ladder", "something here asks people, but [payment] names no ladder",
            'Add ladder = "NAME" to [payment] and a [ladder.NAME] that says who answers.',
        )  # fmt: skip
