"""A pod by the client `kr8s`: made, watched, asked, reached, deleted. The manifest is the argument."""

from __future__ import annotations

import json
import sys
from urllib.request import urlopen

import kr8s
from kr8s.objects import Pod

manifest = json.loads(sys.argv[1])
pod = Pod(manifest)
pod.create()
for _, found in kr8s.watch("pods", namespace="default", field_selector={"metadata.name": pod.name}):
    if found.ready():
        break
print("exec:", pod.exec(["cat", "/w/index.html"]).stdout.decode().strip())
print("logs:", "\n".join(pod.logs()))
with pod.portforward(remote_port=8080, local_port="auto") as port, urlopen(f"http://127.0.0.1:{port}/") as answer:
    print("port:", answer.read().decode().strip())
pod.delete()
pod.wait("delete", timeout=60)
print("deleted:", pod.name)
