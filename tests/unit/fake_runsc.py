"""A stand-in for runsc: what the bundle's scenario.py prints is what the sandbox does. What it executes is a relay."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from sandkube.cluster.programs import Programs

RUNSC = """\
import json, os, signal, socket, subprocess, sys, time
words = [each for each in sys.argv[1:] if not each.startswith("--")]
root = next(each for each in sys.argv if each.startswith("--root="))
if words[0] == "run":
    bundle = next(each for each in sys.argv if each.startswith("--bundle=")).removeprefix("--bundle=")
    spec = json.load(open(bundle + "/config.json"))
    scenario = spec["root"]["path"]
    with open(root.removeprefix("--root=") + "/pid", "w") as file:
        file.write(str(os.getpid()))
    exec(open(scenario + "/scenario.py").read())
elif words[0] == "kill":
    os.kill(int(open(root.removeprefix("--root=") + "/pid").read()), getattr(signal, "SIG" + words[2]))
elif words[0] == "exec":
    import threading
    control = socket.socket(fileno=0)
    def copy(source, target, change, stream):
        try:
            while (data := source.recv(1 << 17)) or source.family == socket.AF_INET and not stream:
                target.send(change(data)) if not stream else target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            target.close()
    def join(asked, host):
        stream = asked["network"] == "tcp"
        node = socket.socket(type=socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        where, port = asked["address"].split(":")
        try:
            node.connect((where, int(port)))
        except OSError:
            return host.close()
        host.sendall(bytes([1])) if stream else None
        for each in ((host, node, lambda data: data[1:], stream), (node, host, lambda data: bytes(1) + data, stream)):
            threading.Thread(target=copy, args=each, daemon=True).start()
    while True:
        data, (given,), _, _ = socket.recv_fds(control, 4096, 1) if control.recv(1, socket.MSG_PEEK) else sys.exit(0)
        threading.Thread(target=join, args=(json.loads(data), socket.socket(fileno=given)), daemon=True).start()
else:
    local = int(words[2].split(":")[0])
    listener = socket.create_server(("127.0.0.1", local))
    print(f"Forwarding local port {listener.getsockname()[1]} to 6443...", flush=True)
    signal.pause()
"""

BOOTS = """\
import json
def say(**event):
    print(json.dumps(event), flush=True)
def log(text):
    print(text, file=sys.stderr, flush=True)
log("apiserver\\tup")
say(type="stage", stage="mounts", seconds=0.01)
say(type="credentials", kubeconfig="server: https://127.0.0.1:6443")
say(type="stage", stage="apiserver", seconds=1.5)
say(type="stage", stage="ready", seconds=2.0)
say(type="stage", stage="accounts", seconds=2.5)
say(type="stage", stage="manifests", seconds=2.5)
say(type="stage", stage="service", seconds=2.5)
say(type="stage", stage="services", seconds=2.5)
say(type="stage", stage="controllers", seconds=2.5)
say(type="stage", stage="dns", seconds=2.5)
"""
WAITS = "signal.pause()\n"


def programs(folder: Path, scenario: str) -> Programs:
    """Programs whose sandbox plays `scenario`."""
    folder.mkdir(exist_ok=True)
    runsc = folder / "runsc"
    runsc.write_text(f"#!{sys.executable} -IS\n{RUNSC}")
    runsc.chmod(0o755)
    (folder / "scenario.py").write_text(scenario)
    (folder / "config.json").write_text(
        json.dumps({"root": {"path": "."}, "process": {"args": ["node"]}, "mounts": []})
    )
    return Programs(runsc=runsc, bundle=folder, kubectl=Path(os.devnull))
