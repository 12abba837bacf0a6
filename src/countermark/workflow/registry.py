"""Recorded definitions, as runs need them: by digest, with how far their calls reach and the group of a run."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from countermark.model.digest import WORKFLOW, digest_of
from countermark.model.errors import ArgumentError, CountermarkError, EncodingError
from countermark.model.ports import Store
from countermark.model.records import Record
from countermark.workflow.calls import Reach, reach_of
from countermark.workflow.definition import Definition, read_definition
from countermark.workflow.errors import ExpressionError
from countermark.workflow.expressions import fill
from countermark.workflow.projection import Projection
from countermark.workflow.sealing import Seals

DEFINITIONS_MAX = 256

log = logging.getLogger("countermark.workflow")


class Registry:
    """Those used last are kept in memory."""

    def __init__(self, store: Store, rows: Projection, seals: Seals) -> None:
        self._store = store
        self._rows = rows
        self._seals = seals
        self._definitions: OrderedDict[str, Definition] = OrderedDict()
        self._reaches: OrderedDict[str, Reach] = OrderedDict()

    def definition(self, digest: str) -> Definition:
        """A recorded definition. Raises ``ArgumentError`` (``unknown_definition``)."""
        found = self._definitions.get(digest)
        if found is None:
            seq = self._rows.definition(digest)
            if seq is None:
                raise ArgumentError("no such definition was recorded", field="definition", code="unknown_definition")
            found = read_definition(self._store.record(seq).body["document"])
            self.keep(found)
        return found

    def known(self, document: Mapping[str, Any]) -> Definition | None:
        """A definition that was read lately, by its document: reading one takes as long as several runs of it."""
        try:
            return self._definitions.get(digest_of(WORKFLOW, document))
        except EncodingError:
            return None

    def recorded(self, digest: str) -> bool:
        """Whether a definition was recorded."""
        return self._rows.definition(digest) is not None

    def keep(self, definition: Definition) -> None:
        """Remember a definition that is about to be recorded."""
        self._definitions[definition.digest] = definition
        while len(self._definitions) > DEFINITIONS_MAX:
            self._definitions.popitem(last=False)

    def reach(self, definition: Definition) -> Reach:
        """How far its calls reach. Raises ``CountermarkError``: too far, or it calls what was not recorded."""
        found = self._reaches.get(definition.digest)
        if found is None:
            found = reach_of(definition, lambda called: self.reach(self.definition(called)))
            self._reaches[definition.digest] = found
            while len(self._reaches) > DEFINITIONS_MAX:
                self._reaches.popitem(last=False)
        return found

    def group_of(self, definition: Definition, inputs: Mapping[str, Any]) -> str | None:
        """The group of which one run at a time goes on. Raises ``ExpressionError``: such a run cannot begin."""
        if definition.concurrency is None:
            return None
        value = fill(definition.concurrency.group, {"inputs": inputs, "run": {"name": definition.name}})
        group = value if isinstance(value, str) else str(value)
        return group if definition.sensitive is None else self._seals.pseudonym(group)

    def group_in(self, definition: Definition, started: Record) -> str | None:
        """The group of a run that has begun, none when that cannot be told: whatever was recorded, others go on."""
        if definition.concurrency is None:
            return None
        try:
            (plain,) = self._seals.opened([started])
            return self.group_of(definition, plain.body["workflow"]["inputs"])
        except (ExpressionError, CountermarkError) as error:
            log.warning("a run of %s has no group: %s", definition.name, error)
            return None
