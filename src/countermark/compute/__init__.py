"""Pure steps: Starlark in worker processes that can reach nothing.

    with Pool(2) as pool:
        ran = pool.submit("def main(a, b):\\n    return {'sum': a + b}", {"a": 1, "b": 2}).result()
    ran.status, ran.output    # "ok", {"sum": 3}

Pages: ``docs/compute.md`` (what the confinement is), ``docs/spec/workflow.md`` (what is recorded).
"""

from countermark.compute.code import check_code, check_resolved, code_digest
from countermark.compute.errors import ComputeBusyError, ComputeClosedError, UnconfinedError
from countermark.compute.pool import Pool
from countermark.compute.values import ENGINE, Limits, Ran, input_digest

__all__ = [
    "ENGINE",
    "ComputeBusyError",
    "ComputeClosedError",
    "Limits",
    "Pool",
    "Ran",
    "UnconfinedError",
    "check_code",
    "check_resolved",
    "code_digest",
    "input_digest",
]
