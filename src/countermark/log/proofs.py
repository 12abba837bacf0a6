"""C2SP tlog-proof: one text that shows a record to be in the log, for whoever has the log's key and the record.

c2sp.org/tlog-proof@v1
index 73894
BASE64 HASH, from the leaf's sibling up to the root's child

the checkpoint, as it was signed and cosigned
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

HEADER = "c2sp.org/tlog-proof@v1"


def tlog_proof(index: int, path: Sequence[bytes], note: bytes) -> bytes:
    """The proof of the record at ``index``: its audit path to the root that ``note`` signs."""
    hashes = "".join(f"{base64.b64encode(one).decode('ascii')}\n" for one in path)
    return f"{HEADER}\nindex {index}\n{hashes}\n".encode("ascii") + note
