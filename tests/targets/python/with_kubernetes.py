"""A pod by the client `kubernetes`: made, watched, asked, reached, deleted. The manifest is the argument."""

from __future__ import annotations

import json
import sys

from kubernetes import client, config, watch
from kubernetes.stream import portforward, stream

config.load_kube_config()
api = client.CoreV1Api()
manifest = json.loads(sys.argv[1])
name = manifest["metadata"]["name"]
made = api.create_namespaced_pod("default", manifest)
where = {"namespace": "default", "field_selector": f"metadata.name={name}", "timeout_seconds": 60}
for event in watch.Watch().stream(api.list_namespaced_pod, **where):
    conditions = event["object"].status.conditions or []
    if any(each.type == "Ready" and each.status == "True" for each in conditions):
        break
else:
    sys.exit("the pod does not become ready")
command = {"command": ["cat", "/w/index.html"], "stderr": True, "stdout": True, "stdin": False, "tty": False}
print("exec:", stream(api.connect_get_namespaced_pod_exec, name, "default", **command).strip())
print("logs:", api.read_namespaced_pod_log(name, "default").strip())
forwarded = portforward(api.connect_get_namespaced_pod_portforward, name, "default", ports="8080")
connection = forwarded.socket(8080)
connection.setblocking(True)
connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
said = b""
while part := connection.recv(4096):
    said += part
connection.close()
print("port:", said.decode().split("\r\n\r\n")[1].strip())
version = api.list_namespaced_pod("default").metadata.resource_version
api.delete_namespaced_pod(name, "default")
for event in watch.Watch().stream(api.list_namespaced_pod, resource_version=version, **where):
    if event["type"] == "DELETED":
        break
print("deleted:", name)
