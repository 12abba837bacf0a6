"""A context without objects in it, and policies that read it (ADR 0008).

Cedar reads a context by trial: for an object, and for all that is in it, it tries everything else that it could be.
So a decision hands over ``facts.day_total`` as one member of that name, and asks policies that read that member.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from cedarpy import pst

_CONTEXT = pst.Var("context")
_ARGS = "args"


class _NestedError(Exception):
    """A policy reads an object of the context as a whole."""


def flat(context: Mapping[str, Any]) -> dict[str, Any]:
    """The context with each member of an object as a member of its own, by its path: names hold no dots."""
    found: dict[str, Any] = {}
    for name, value in context.items():
        if value.__class__ is not dict:
            found[name] = value
            continue
        for inner, one in value.items():
            if one.__class__ is not dict:
                found[f"{name}.{inner}"] = one
                continue
            for last, leaf in one.items():
                found[f"{name}.{inner}.{last}"] = leaf
    return found


def flattened(policies: Mapping[str, pst.Template], leaves: Collection[str]) -> dict[str, pst.Template] | None:
    """The same policies, reading a flat context; None when one of them reads anything of it but ``leaves``.

    Each answers, and errs, for ``flat(context)`` as it did for ``context``.
    """
    try:
        return {name: replace(one, clauses=_rewritten(one.clauses, leaves)) for name, one in policies.items()}
    except _NestedError:
        return None


def _rewritten(node: Any, leaves: Collection[str]) -> Any:
    if isinstance(node, pst.GetAttr) and (path := _path(node)) is not None:
        return pst.GetAttr(_CONTEXT, _leaf(path, leaves))
    if isinstance(node, pst.HasAttr) and (path := _path(node.base)) is not None:
        if path[:1] == [_ARGS]:  # there is no object at all when no argument is given, which is an error
            raise _NestedError
        return pst.HasAttr(_CONTEXT, (_leaf([*path, *node.attrs], leaves),))
    if node == _CONTEXT:
        raise _NestedError
    if isinstance(node, tuple):
        return tuple([_rewritten(one, leaves) for one in node])
    if isinstance(node, pst.Record):
        return pst.Record(pst.FrozenMap({name: _rewritten(one, leaves) for name, one in node.fields.items()}))
    if is_dataclass(node) and not isinstance(node, type):
        return replace(node, **{one.name: _rewritten(getattr(node, one.name), leaves) for one in fields(node)})
    return node


def _path(node: Any) -> list[str] | None:
    """Which member of the context an expression names; None when it begins elsewhere."""
    names: list[str] = []
    while isinstance(node, pst.GetAttr):
        names.insert(0, node.attr)
        node = node.base
    return names if node == _CONTEXT else None


def _leaf(path: list[str], leaves: Collection[str]) -> str:
    name = ".".join(path)
    if name not in leaves or any("." in part for part in path):
        raise _NestedError
    return name
