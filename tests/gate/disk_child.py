"""A process whose files may not grow any more: ``python disk_child.py ROOT BYTES``; says as JSON what it saw."""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path

from rig import Provider, hold, pay

from countermark.model.errors import CountermarkError

if __name__ == "__main__":
    root, room = Path(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    provider = Provider()
    handle = hold(root, provider)
    run = handle.start_run()
    first = pay(handle, 1, run=run).status
    size = max(path.stat().st_size for path in (root / "data").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
    codes, sent = [], []
    for number in range(2, 30):
        before = len(provider.sent)
        try:
            codes.append(pay(handle, number, run=run).status)
        except CountermarkError as error:
            codes.append(error.code)
            sent.append(len(provider.sent) - before)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    handle.call("recover", {})  # one outcome may not have been written: it is found again under its key
    after = [pay(handle, number, run=run).status for number in range(2, 30)]
    handle.close()
    print(json.dumps({"first": first, "codes": codes, "sent": sent, "after": after, "effects": len(provider.effects)}))
