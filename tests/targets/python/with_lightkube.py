"""A pod by the client `lightkube`, which forwards no port: made, watched, asked, deleted; the manifest is given."""

from __future__ import annotations

import json
import sys

from lightkube import Client
from lightkube.resources.core_v1 import Pod

manifest = json.loads(sys.argv[1])
client = Client()
made = client.create(Pod.from_dict({"apiVersion": "v1", "kind": "Pod", **manifest}))
name = made.metadata.name
for _, found in client.watch(Pod, namespace="default", fields={"metadata.name": name}):
    conditions = found.status.conditions or []
    if any(each.type == "Ready" and each.status == "True" for each in conditions):
        break
print("exec:", client.exec(name, command=["cat", "/w/index.html"], stdout=True).stdout.strip())
print("logs:", "".join(client.log(name)).strip())
before = client.get(Pod, name).metadata.resourceVersion
client.delete(Pod, name)
for event, _ in client.watch(Pod, namespace="default", fields={"metadata.name": name}, resource_version=before):
    if event == "DELETED":
        break
print("deleted:", name)
