"""ToolSpec: a named, schema-typed capability of a connector, and the strict decoding of its arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from countermark.model.answers import Answers, answers_from
from countermark.model.clock import US
from countermark.model.errors import ArgumentError, CountermarkError
from countermark.model.onchain import OnChain, number_of, onchain_from, scaled
from countermark.model.words import close_to, listed, nearest, quoted

ArgType = Literal["string", "integer", "boolean"]
ArgClass = Literal["amount", "currency", "payee", "reference", "inert"]
ToolClass = Literal["money", "change", "read"]
Recovery = Literal["idempotent", "lookup", "escalate"]
Value = str | int | bool

BEFORE = "before"  # the one value of a tool's ``witness``
MONITOR_DAYS_MAX = 14
MONITOR_US_MAX = MONITOR_DAYS_MAX * 86_400 * US

CALLER = "caller"  # the connector of tools that the caller runs itself and reports (tier ``observing``)

STRING_CHARS_MAX = 1_024
AMOUNT_MAX = 10**15  # minor units; far inside i64, so a sum over a window cannot overflow Cedar's Long by one action
ARGS_MAX = 64
PATTERNS_REMEMBERED_MAX = 1_024
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # tab and line feed may stand in free text
_ALIAS = re.compile(r"[a-z][a-z0-9_]{0,39}")


_compiled = lru_cache(maxsize=PATTERNS_REMEMBERED_MAX)(re.compile)


@dataclass(frozen=True, slots=True)
class ArgSpec:
    """One argument of a tool.

    ``name`` is the provider's own (``metadata[invoice]``); ``alias`` is how policies and records call it
    (``[a-z][a-z0-9_]*``, default: the name with every other character turned into ``_``).
    ``sensitive`` values never stand in a record: it holds a salted digest, the value is sealed.
    An amount with a ``unit`` is a text of base units, such as a token's, of which ``unit`` make one of the units that
    limits count; ``minimum`` and ``maximum`` are in the latter. 0: the amount is an integer of minor units itself.
    """

    name: str
    type: ArgType
    class_: ArgClass
    alias: str
    required: bool = True
    sensitive: bool = False
    enum: tuple[str, ...] = ()
    pattern: str = ""
    minimum: int | None = None
    maximum: int | None = None
    chars_max: int = STRING_CHARS_MAX
    unit: int = 0

    def counted(self, value: Value) -> int:
        """An amount in the units that limits count; base units are rounded up. Raises ``ArgumentError``."""
        return scaled(number_of(value, self.name), self.unit) if self.unit else int(value)

    def check(self, value: object) -> Value:
        """Return ``value`` if it fits exactly; there is no coercion. Raises ``ArgumentError``."""
        if self.type == "string":
            if type(value) is not str:
                raise ArgumentError(f"{self.name} must be a string", field=self.name)
            text = self._check_string(value)
            if self.unit:
                self._check_range(self.counted(text))
            return text
        if self.type == "boolean":
            if type(value) is not bool:
                raise ArgumentError(f"{self.name} must be true or false", field=self.name)
            return value
        if type(value) is not int:
            raise ArgumentError(
                f"{self.name} must be an integer", field=self.name, hint="Amounts are integers in minor units."
            )
        self._check_range(value)
        return value

    def _check_range(self, value: int) -> None:
        low = 1 if self.class_ == "amount" and self.minimum is None else self.minimum
        high = AMOUNT_MAX if self.maximum is None else self.maximum
        if (low is not None and value < low) or value > high or value < -AMOUNT_MAX:
            raise ArgumentError(f"{self.name} is out of range", field=self.name)

    def _check_string(self, value: str) -> str:
        if len(value) > self.chars_max:
            raise ArgumentError(f"{self.name} is longer than {self.chars_max} characters", field=self.name)
        if not (value.isascii() and value.isprintable()):
            self._check_characters(value)
        if self.enum and value not in self.enum:
            raise ArgumentError(
                f"{self.name} is not one of the allowed values", field=self.name, hint=nearest(value, self.enum)
            )
        if self.pattern and _compiled(self.pattern).fullmatch(value) is None:
            raise ArgumentError(
                f"{self.name} does not have the declared form", field=self.name, hint=f"It matches {self.pattern}"
            )
        return value

    def _check_characters(self, value: str) -> None:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ArgumentError(f"{self.name} is not valid Unicode", field=self.name) from None
        if _CONTROL.search(value) is not None:
            raise ArgumentError(f"{self.name} holds control characters", field=self.name)

    def document(self) -> dict[str, object]:
        """JSON form, as it stands in a compiled bundle (``docs/spec/policy.md``); ``unit`` only where there is one."""
        more: dict[str, object] = {"unit": str(self.unit)} if self.unit else {}
        return {
            "name": self.name, "type": self.type, "class": self.class_, "alias": self.alias,
            "required": self.required, "sensitive": self.sensitive, "enum": list(self.enum),
            "pattern": self.pattern, "minimum": self.minimum, "maximum": self.maximum, "chars_max": self.chars_max,
            **more,
        }  # fmt: skip


@dataclass(frozen=True)
class ToolSpec:
    """A tool as one bundle knows it.

    Durations are integer seconds or milliseconds, as their names say. ``once_per`` names argument aliases or
    ``payee``; together with ``once_scope`` they make the business key. ``facts`` are the names of the facts that
    apply to this tool, ``reads`` the members of the Cedar context that its policies read. ``endpoint``
    (``POST https://origin/path``), ``headers`` and ``encoding`` say how arguments become the request, so that a
    verifier can rebuild it (``docs/spec/requests.md``). ``answers`` says how a provider without a connector of its own
    answers. ``monitor`` is the time (microseconds) until which the policy only says what it would have done, and
    after which everything is denied; None for a tool that is governed. ``resolve`` names the argument whose
    meaning at the provider (the bank account behind a destination) is read before the decision and again before the
    effect; a draft lists in ``resolvable`` for which arguments its connector can. ``evm`` says what a tool does on a
    chain.
    """

    name: str
    connector: str
    class_: ToolClass
    args: tuple[ArgSpec, ...]
    recovery: Recovery = "escalate"
    once_per: tuple[str, ...] = ()
    once_scope: str = ""
    currency: str = ""
    encoding: str = "json-v1"
    key_ttl_s: int = 0
    timeout_ms: int = 30_000
    settle_lag_s: int = 120
    dispatch_within_s: int = 60
    endpoint: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    facts: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    answers: Answers | None = None
    monitor: int | None = None
    resolve: str = ""
    resolvable: tuple[str, ...] = ()
    witness: str = ""  # "before": the effect waits until witnesses have seen the intent
    evm: OnChain | None = None

    @cached_property
    def by_name(self) -> Mapping[str, ArgSpec]:
        return {arg.name: arg for arg in self.args}

    @cached_property
    def by_alias(self) -> Mapping[str, ArgSpec]:
        return {arg.alias: arg for arg in self.args}

    @cached_property
    def required_names(self) -> frozenset[str]:
        return frozenset(arg.name for arg in self.args if arg.required)

    def one(self, class_: ArgClass) -> ArgSpec | None:
        """The argument of a class, when there is exactly one; money tools have at most one amount, currency, payee."""
        return self._only.get(class_)

    @cached_property
    def _only(self) -> Mapping[str, ArgSpec]:
        found: dict[str, list[ArgSpec]] = {}
        for arg in self.args:
            found.setdefault(arg.class_, []).append(arg)
        return {name: args[0] for name, args in found.items() if len(args) == 1}

    @cached_property
    def has_sensitive(self) -> bool:
        """Whether some argument is sealed, and the request's salt with it."""
        return any(arg.sensitive for arg in self.args)

    def decode(self, args: object) -> dict[str, Value]:
        """Check arguments strictly against this tool: unknown, missing, mistyped or oversized values raise.

        Raises:
            ArgumentError: with ``field`` set to the first offending argument.
        """
        if type(args) is not dict:
            raise ArgumentError("args must be an object")
        if len(args) > ARGS_MAX:
            raise ArgumentError(f"more than {ARGS_MAX} arguments")
        specs = self.by_name
        out: dict[str, Value] = {}
        for name in sorted(args, key=str):
            spec = specs.get(name) if type(name) is str else None
            if spec is None:
                raise self._no_argument(str(name))
            out[name] = spec.check(args[name])
        missing = self.required_names - out.keys()
        if missing:
            field = min(missing)
            raise ArgumentError(f"{field} is required", field=field, code="missing_argument")
        return out

    def _no_argument(self, name: str) -> ArgumentError:
        takes = f"It takes: {listed(self.by_name)}." if self.args else "It takes none."
        return ArgumentError(
            f"{self.name} has no argument {quoted(name)}", field=name[:64], code="unknown_argument",
            hint=f"{close_to(name, self.by_name)} {takes}".strip(),
        )  # fmt: skip

    def monitor_fits(self, at: int) -> bool:
        """Whether ``monitor``, if there is one, may be put in force at ``at`` (microseconds)."""
        return self.monitor is None or at < self.monitor <= at + MONITOR_US_MAX

    def document(self) -> dict[str, object]:
        """JSON form, as in a compiled bundle; what it need not have only where it has it."""
        more: dict[str, object] = {} if self.answers is None else {"answers": self.answers.document()}
        if self.monitor is not None:
            more["monitor"] = self.monitor
        if self.resolve:
            more["resolve"] = self.resolve
        if self.witness:
            more["witness"] = self.witness
        if self.evm is not None:
            more["evm"] = self.evm.document()
        return {
            "name": self.name, "connector": self.connector, "class": self.class_,
            "args": [arg.document() for arg in self.args], "recovery": self.recovery,
            "once_per": list(self.once_per), "once_scope": self.once_scope, "currency": self.currency,
            "encoding": self.encoding, "key_ttl_s": self.key_ttl_s, "timeout_ms": self.timeout_ms,
            "settle_lag_s": self.settle_lag_s, "dispatch_within_s": self.dispatch_within_s, "endpoint": self.endpoint,
            "headers": [list(pair) for pair in self.headers],
            "outputs": [list(pair) for pair in self.outputs], "facts": list(self.facts),
            "reads": list(self.reads), **more,
        }  # fmt: skip


def alias_of(name: str) -> str:
    """The default alias of a provider's argument name: ``metadata[invoice]`` -> ``metadata_invoice``."""
    alias = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:40]
    if _ALIAS.fullmatch(alias) is None:
        raise CountermarkError(f"no alias can be made from the argument name {name!r}", code="bad_policy")
    return alias


def tool_from_document(doc: Mapping[str, object]) -> ToolSpec:
    """Inverse of ``ToolSpec.document``; the input is a bundle's compiled part, already checked by its digest."""
    fields = dict(doc)
    args = tuple(_arg_from(item) for item in fields.pop("args"))  # type: ignore[attr-defined]
    fields["class_"] = fields.pop("class")
    if "answers" in fields:
        fields["answers"] = answers_from(fields["answers"])  # type: ignore[arg-type]
    if "evm" in fields:
        fields["evm"] = onchain_from(fields["evm"])  # type: ignore[arg-type]
    if "monitor" in fields and type(fields["monitor"]) is not int:
        raise ValueError("monitor is a time, or absent")
    if "resolve" in fields and (type(fields["resolve"]) is not str or not fields["resolve"]):
        raise ValueError("resolve is an argument's alias, or absent")
    if fields.get("witness", BEFORE) != BEFORE:
        raise ValueError("witness is 'before', or absent")
    for name in ("once_per", "facts", "reads"):
        fields[name] = tuple(fields[name])  # type: ignore[arg-type]
    for name in ("outputs", "headers"):
        fields[name] = tuple((str(a), str(b)) for a, b in fields[name])  # type: ignore[attr-defined]
    return ToolSpec(args=args, **fields)  # type: ignore[arg-type]


def _arg_from(doc: Mapping[str, object]) -> ArgSpec:
    fields = dict(doc)
    fields["class_"] = fields.pop("class")
    fields["enum"] = tuple(fields["enum"])  # type: ignore[arg-type]
    fields["unit"] = int(str(fields.get("unit", "0")))
    return ArgSpec(**fields)  # type: ignore[arg-type]
