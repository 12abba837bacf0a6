"""What the insider's user tries: shows the witness other histories, and reaches for its directory and process."""

import json
import os
import signal
import sys
import urllib.error
import urllib.request

given = json.load(sys.stdin)
said = []
for body in given["requests"]:
    request = urllib.request.Request(given["url"] + "/add-checkpoint", body.encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            said.append(answer.status)
    except urllib.error.HTTPError as error:
        said.append(error.code)
reached = []
for path in given["files"]:
    for mode in ("rb", "r+b"):
        try:
            with open(path, mode):
                reached.append(path)
        except PermissionError:
            pass
for act in (
    lambda: os.listdir(given["folder"]),
    lambda: os.rename(given["folder"], given["folder"] + ".old"),
    lambda: os.kill(given["pid"], signal.SIGTERM),
):
    try:
        act()
        reached.append("folder or process")
    except PermissionError:
        pass
print(json.dumps({"uid": os.getuid(), "said": said, "reached": reached}))
