"""Values of sealed runs: one salted digest in each record that would have shown them (docs/spec/workflow.md)."""

from collections.abc import Mapping
from typing import Any

from countermark_verify import canon
from countermark_verify.shape import mapping, text, value

VALUE_DEPTH_MAX = 8
MESSAGE_CHARS_MAX = 500
ID = r"[A-Za-z_][A-Za-z0-9_-]{0,39}"
VALUE = value(VALUE_DEPTH_MAX)
VALUES = mapping(VALUE, key=ID)
MESSAGE = text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", chars_max=MESSAGE_CHARS_MAX)

KINDS = frozenset(("run.started", "compute.executed", "step.resumed", "run.ended"))
SUBJECT = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
ALIAS = r"\$(?:inputs|output|message|outputs)"


def subject_of(record: Mapping[str, Any]) -> str | None:
    """Whose the value is that a record does not show; None when it is none of a sealed run."""
    found: str | None = record["body"].get("subject") if record["kind"] in KINDS else None
    return found


def _place(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The object that holds the value, and its member."""
    if "workflow" in body:
        return body["workflow"], "inputs" if "inputs" in body["workflow"] else "outputs"
    if "output" in body:
        return body, "output" if body["status"] == "ok" else "message"
    return body, "outputs"


def hidden(body: Mapping[str, Any]) -> tuple[str, str]:
    """The alias of the value, and its digest."""
    holder, member = _place(body)
    return f"${member}", holder[member]["$sd"]


def misfit(alias: str, found: Any) -> bool:
    """Whether this cannot be the value of such a member."""
    return bool((MESSAGE if alias == "$message" else VALUES)(found))


def opened(body: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """The body as an unsealed run would have it, but for the digest of what code was given."""
    holder, member = _place(body)
    plain = {name: item for name, item in body.items() if name != "subject"}
    if holder is not body:
        return plain | {"workflow": {**holder, member: value}}
    if member == "output":
        plain["result"] = canon.digest("value", canon.render(value))
    return plain | {member: value}
