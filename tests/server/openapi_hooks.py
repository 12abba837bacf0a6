"""Loaded by schemathesis: writes whole numbers as the gate reads them.

To JSON Schema 75.0 is an integer like 75, so no schema can say that a number with a fraction is refused, however whole
it is. ``test_server_errors`` shows that it is.
"""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Every whole number without its fraction."""
    if type(body) is float and body.is_integer():
        return int(body)
    if type(body) is list:
        return [map_body(context, item) for item in body]
    if type(body) is dict:
        return {name: map_body(context, item) for name, item in body.items()}
    return body
