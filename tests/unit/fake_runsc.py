"""A stand-in for runsc: what the bundle's scenario.py prints is what the sandbox does."""

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
