"""An image that says something, and how one gets into a registry: the protocol that docker push speaks."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

from tests.clones import ROOT
from tests.image_maker import OCI, Made, digest, layer


def image(note: str) -> Made:
    """One that says something and goes on; each is of a layer of its own."""
    busybox = (ROOT / "outputs/result/busybox/bin/busybox").read_bytes()
    links = {f"bin/{name}": "busybox" for name in ("sh", "cat", "sleep")}
    command = ("/bin/sh", "-c", "sleep 3600")
    return Made(
        [layer({"bin/busybox": busybox}, links), layer({"note": note.encode()})], packer="+gzip", command=command
    )


def upload(connection: http.client.HTTPConnection, name: str, one: Made, **shown: str) -> None:
    """Put it into a registry as REPOSITORY:TAG, with these headers, and close the connection."""
    repository, _, tag = name.rpartition(":")

    def said(method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        connection.request(method, path, body, shown | {key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (201, 202), (answer.status, path)
        return answer

    for blob in (*one.blobs, one.config):
        where = urlsplit(said("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"])
        path = f"{where.path}?{where.query}&digest={digest(blob)}"
        said("PUT", path, blob, Content_Type="application/octet-stream")
    said("PUT", f"/v2/{repository}/manifests/{tag}", one.manifest, Content_Type=f"{OCI}manifest.v1+json")
    connection.close()
