"""``/openapi.json``: written from the declarations that the routes themselves are made of."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.types import Receive, Scope, Send

from countermark.server import schemas

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
Who = Literal["agent", "person", "signature", "anyone"]

JSON = "application/json"
PROBLEM = "application/problem+json"
ALWAYS = (400, 408, 414, 421, 431, 500, 503)  # what any request may be answered with
WITH_BODY = (413, 415)

_PARAM = re.compile(r"\{([a-z]+)(?::path)?\}")
_WORDS = {
    200: "Done.", 201: "Made.", 202: "Waits for people, or is still under way.", 400: "Not a valid request.",
    401: "Nobody we know.", 403: "Denied.", 404: "There is nothing here of yours.", 405: "Not this method.",
    408: "The request did not arrive in time.", 409: "In conflict with what was recorded.",
    413: "The body is too long.", 414: "The address is too long.", 415: "Not application/json.",
    421: "Not a name of this server.", 429: "Too many of this agent's are open.", 431: "The headers are too long.",
    500: "A fault of the gate.", 503: "Busy or halted: ask again later.",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """One route: how it is reached, who may, what it takes and what it may answer.

    ``answers`` maps each status that is no problem to a schema's name, or to a media type for what is not JSON;
    ``problems`` are the further statuses that this route may answer with.
    """

    method: str
    path: str
    handler: Handler
    name: str
    summary: str
    who: Who
    answers: Mapping[int, str]
    body: str = ""
    query: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[int, ...] = ()

    def statuses(self) -> set[int]:
        """Every status that this route may answer with."""
        found = {*self.answers, *self.problems, *ALWAYS}
        if self.who != "anyone":
            found |= {401, 403} if self.who != "signature" else {403}
        return found | (set(WITH_BODY) if self.method == "POST" else {413})


def write(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        path = _PARAM.sub(lambda match: "{" + match[1] + "}", one.path)
        paths.setdefault(path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Countermark", "version": version, "summary": "The second stamp for autonomous agents.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.SCHEMAS,
            "securitySchemes": {
                "agent": {"type": "http", "scheme": "bearer", "description": "An agent's API token or JWT."},
                "person": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "A pass: Countermark-Pass and the request's own signature by a person's key.",
                },
            },
        },
    }  # fmt: skip


def _operation(one: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": one.name, "summary": one.summary, "responses": _responses(one)}
    parameters = [
        {"name": match[1], "in": "path", "required": True, "schema": schemas.PATHS[match[1]]}
        for match in _PARAM.finditer(one.path)
    ] + [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in one.query.items()]
    if parameters:
        found["parameters"] = parameters
    if one.body:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": _ref(one.body)}}}
    found["security"] = [{one.who: []}] if one.who in ("agent", "person") else []
    return found


def _responses(one: Operation) -> dict[str, Any]:
    responses = {}
    for status in sorted(one.statuses()):
        what = one.answers.get(status)
        if what is None:
            content: dict[str, Any] = {PROBLEM: {"schema": _ref("Problem")}}
        else:
            content = {what: {}} if "/" in what else {JSON: {"schema": _ref(what)}}
            if status == 503:  # /healthz tells with a document of its own; a busy server with a problem
                content[PROBLEM] = {"schema": _ref("Problem")}
        responses[str(status)] = {"description": _WORDS[status], "content": content}
        if status in (429, 503) and what is None:
            responses[str(status)]["headers"] = {"Retry-After": {"schema": {"type": "string"}}}
    return responses


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
