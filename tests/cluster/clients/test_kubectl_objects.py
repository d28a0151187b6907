"""What kubectl does with objects of all kinds, and with who asks."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cluster.clients.conftest import IMAGE, NODE, Client, eventually, manifest, value


def test_auth(k: Client) -> None:
    k("create", "serviceaccount", "reader")
    k("create", "role", "reader", "--verb=get,list", "--resource=pods")
    k("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=verbs:reader")
    who = "--as=system:serviceaccount:verbs:reader"
    assert k("auth", "can-i", "delete", "nodes") == "yes\n"
    eventually("the role does not count", lambda: k.run("auth", "can-i", "list", "pods", who).stdout == "yes\n")
    assert k("auth", "can-i", "delete", "pods", who, status=1) == "no\n"
    assert re.search(r"^pods +\[] +\[] +\[get list]$", k("auth", "can-i", "--list", who), re.MULTILINE)
    assert "system:masters" in k("auth", "whoami")
    token = k("create", "token", "reader", "--duration=10m").strip()
    assert (
        json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["sub"] == "system:serviceaccount:verbs:reader"
    )
    as_reader = Client(
        (k.words[0], "--namespace=verbs", "--kubeconfig=/dev/null", *access(k), f"--token={token}"), k.env
    )
    assert "system:serviceaccount:verbs:reader" in as_reader("auth", "whoami")
    assert "cannot list resource" in as_reader("get", "secrets", status=1)
    as_reader("get", "pods")
    rules = [{"apiGroups": [""], "resources": ["services"], "verbs": ["list"]}]
    role = json.loads(manifest("Role", "reader", rules=rules)) | {"apiVersion": "rbac.authorization.k8s.io/v1"}
    role["metadata"]["namespace"] = "verbs"  # it does not heed the option
    assert "reconciled" in k("auth", "reconcile", "--filename=-", stdin=json.dumps(role))
    eventually("what was added does not count", lambda: as_reader.run("get", "services").returncode == 0)


def access(k: Client) -> tuple[str, ...]:
    """Options that lead to the cluster without its kubeconfig."""
    cluster = json.loads(k("config", "view", "--raw", "--flatten", "--minify", "--output=json"))["clusters"][0][
        "cluster"
    ]
    authority = Path(k.env["HOME"]) / "authority.pem"
    authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    return f"--server={cluster['server']}", f"--certificate-authority={authority}"


def test_apply_diff_and_conflicts(k: Client) -> None:
    one, other = (manifest("ConfigMap", "applied", data={"word": each}) for each in ("one", "other"))
    k("apply", "--filename=-", stdin=one)
    said = k("diff", "--filename=-", stdin=other, status=1)
    assert "-  word: one\n+  word: other\n" in said
    assert k("diff", "--filename=-", stdin=one) == ""
    assert '"word":"one"' in k("apply", "view-last-applied", "configmap/applied", "--output=json").replace(
        " ", ""
    ).replace("\n", "")
    k("delete", "configmap", "applied")
    k("apply", "--server-side", "--field-manager=first", "--filename=-", stdin=one)
    conflict = k("apply", "--server-side", "--field-manager=second", "--filename=-", stdin=other, status=1)
    assert 'conflict with "first": .data.word' in conflict
    k("apply", "--server-side", "--field-manager=second", "--force-conflicts", "--filename=-", stdin=other)
    assert value(k, "configmap applied", ".data.word") == "other"
    owners = json.loads(k("get", "configmap", "applied", "--show-managed-fields", "--output=json"))
    assert [each["manager"] for each in owners["metadata"]["managedFields"]] == ["second"]
    assert "configmap/applied serverside-applied" in k(
        "apply", "--server-side", "--field-manager=second", "--dry-run=server", "--filename=-", stdin=one
    ).replace(" (server dry run)", "")


def test_replace_edit_and_patch(k: Client, tmp_path: Path) -> None:
    k("create", "configmap", "edited", "--from-literal=word=one")
    k("edit", "configmap", "edited", KUBE_EDITOR="sed -i s/one/two/")
    assert value(k, "configmap edited", ".data.word") == "two"
    assert "Edit cancelled, no changes made" in k.run("edit", "configmap", "edited", KUBE_EDITOR="true").stderr
    (tmp_path / "made.json").write_text(manifest("ConfigMap", "edited", data={"word": "three"}))
    k("replace", f"--filename={tmp_path / 'made.json'}")
    k("patch", "configmap", "edited", "--type=json", '--patch=[{"op": "add", "path": "/data/more", "value": "x"}]')
    k("patch", "configmap", "edited", "--type=merge", '--patch={"data": {"word": null}}')
    assert value(k, "configmap edited", ".data") == '{"more":"x"}'
    before = value(k, "configmap edited", ".metadata.uid")
    k("replace", "--force", f"--filename={tmp_path / 'made.json'}")
    assert value(k, "configmap edited", ".metadata.uid") != before


def test_certificate(k: Client) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "testers"), x509.NameAttribute(NameOID.COMMON_NAME, "anna")]
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    request = base64.b64encode(asked.public_bytes(serialization.Encoding.PEM)).decode()
    spec = {"request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    for name in ("anna", "denied"):
        made = json.loads(manifest("CertificateSigningRequest", name, spec=spec))
        k("create", "--filename=-", stdin=json.dumps(made | {"apiVersion": "certificates.k8s.io/v1"}))
    k("certificate", "deny", "denied")
    k("certificate", "approve", "anna")
    eventually("no certificate", lambda: value(k, "csr anna", ".status.certificate") != "")
    home = Path(k.env["HOME"])
    (home / "anna.crt").write_bytes(base64.b64decode(value(k, "csr anna", ".status.certificate")))
    plain = serialization.NoEncryption()
    (home / "anna.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    words = (f"--client-certificate={home / 'anna.crt'}", f"--client-key={home / 'anna.key'}", "--kubeconfig=/dev/null")
    said = Client((k.words[0], *access(k), *words), k.env)("auth", "whoami")
    assert re.search(r"Username +anna$", said, re.MULTILINE)
    assert "testers" in said
    assert value(k, "csr denied", ".status.conditions[0].type") == "Denied"
    k("delete", "csr", "anna", "denied")


def test_wait_and_events(k: Client) -> None:
    for verb in ("create", "delete"):
        with k.popen("wait", "configmap/awaited", f"--for={verb}", "--timeout=60s") as waiting:
            k(verb, "configmap", "awaited")
            assert waiting.wait(60) == 0
    said = k("wait", "node", NODE, "--for=condition=Ready=false", "--timeout=1s", status=1)
    assert "timed out waiting for the condition on nodes/runsc" in said
    k("create", "job", "one", IMAGE, "--", "uname")
    k("wait", "job/one", "--for=condition=Complete", "--timeout=60s")
    assert "SuccessfulCreate" in k("events", "--for=job/one")
    k("create", "cronjob", "hourly", IMAGE, "--schedule=@hourly", "--", "uname")
    k("create", "job", "now", "--from=cronjob/hourly")
    k("wait", "job/now", "--for=condition=Complete", "--timeout=60s")
    k("delete", "cronjob,job", "--all")


def test_what_there_is(k: Client) -> None:
    assert re.search(r"^deployments +deploy +apps/v1 +true +Deployment$", k("api-resources"), re.MULTILINE)
    assert "metrics.k8s.io/v1beta1" in k("api-versions")
    assert "is running at" in k("cluster-info")
    assert "FIELD: restartPolicy <string>" in k("explain", "pod.spec.restartPolicy")
    assert "readinessProbe" in k("explain", "deployment.spec.template.spec.containers", "--recursive")
    version = json.loads(k("version", "--output=json"))
    assert version["clientVersion"]["gitVersion"] == version["serverVersion"]["gitVersion"]
    assert k("get", "namespaces", "--sort-by=.metadata.name", "--output=custom-columns=N:.metadata.name").split()[
        :2
    ] == ["N", "default"]
    assert "Name:         verbs" in k("describe", "namespace", "verbs")
    assert k("get", "--raw=/readyz") == "ok"
    assert "kubectl" in k("completion", "bash")
    assert "--server" in k("options")


def test_contexts(k: Client, tmp_path: Path) -> None:
    mine = tmp_path / "config"
    shutil.copy(k.env["KUBECONFIG"], mine)
    other = Client((k.words[0],), {**k.env, "KUBECONFIG": str(mine)})
    other("config", "set-context", "--current", "--namespace=verbs")
    other("config", "rename-context", other("config", "current-context").strip(), "renamed")
    assert other("config", "get-contexts", "--output=name") == "renamed\n"
    assert "serviceaccount/default" in other("get", "serviceaccounts", "--output=name")


def test_kustomize(k: Client, kustomize: Client, tmp_path: Path) -> None:
    """A base and an overlay, as kubectl has it and as kustomize itself does."""
    base, overlay = tmp_path / "base", tmp_path / "overlay"
    base.mkdir()
    overlay.mkdir()
    (base / "pod.json").write_text(
        manifest(
            "Pod", "small", spec={"containers": [{"name": "c", "image": "placeholder", "command": ["sleep", "99"]}]}
        )
    )
    (base / "kustomization.yaml").write_text(
        "resources: [pod.json]\nconfigMapGenerator:\n- name: words\n  literals: [word=base]\n"
    )
    (overlay / "kustomization.yaml").write_text(
        "resources: [../base]\nnamePrefix: over-\nlabels:\n- pairs: {made-by: kustomize}\n"
        "images:\n- name: placeholder\n  newName: sandkube.local/test\n  newTag: '1'\n"
        "configMapGenerator:\n- name: words\n  behavior: merge\n  literals: [more=overlay]\n"
        "patches:\n- target: {kind: Pod}\n  patch: |-\n"
        "    - {op: add, path: /spec/terminationGracePeriodSeconds, value: 0}\n"
    )
    made = k("kustomize", overlay)
    assert made == kustomize("build", overlay)
    assert "+" in k("diff", f"--kustomize={overlay}", status=1)
    k("apply", f"--kustomize={overlay}")
    k("wait", "pod", "--selector=made-by=kustomize", "--for=condition=Ready", "--timeout=30s")
    words = json.loads(k("get", "configmap", "--selector=made-by=kustomize", "--output=json"))["items"]
    assert [each["data"] for each in words] == [{"word": "base", "more": "overlay"}]
    k("delete", f"--kustomize={overlay}", "--wait=false")


def test_no_verb_is_left_out(k: Client) -> None:
    """All that `kubectl help` shows is tried, here, in test_kubectl_pods.py or in the test_kubectl.py above."""
    shown = {*re.findall(r"^  ([a-z-]+) {2,}\S", k("help"), re.MULTILINE)}
    folder = Path(__file__).parents[1]
    files = (
        "clients/conftest.py",
        "clients/test_kubectl_objects.py",
        "clients/test_kubectl_pods.py",
        "test_kubectl.py",
    )
    text = "".join((folder / each).read_text() for each in files)
    tried = {*re.findall(r'(?:\b(?:k|kubectl|other|as_reader)|\.popen|\.run|drain = )\(\s*"([a-z-]+)"', text)}
    tried |= {*re.findall(r'popen\(cluster, "([a-z-]+)"', text), *re.findall(r'argv\("([a-z-]+)"', text)}
    assert {"get", "exec", "cp"} <= shown
    assert shown - tried == {"plugin"}
