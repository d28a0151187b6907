"""A cluster's part in the user's own kubeconfig: what kubectl makes of the file, without a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import kubeconfig, stop
from sandkube.cluster.place import Place, place
from sandkube.cluster.programs import Programs
from sandkube.errors import UserError

OWN = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: QUJD
    server: https://127.0.0.1:7
  name: sandkube
contexts:
- context:
    cluster: sandkube
    user: admin
  name: sandkube
current-context: sandkube
kind: Config
users:
- name: admin
  user:
    token: t
"""
OTHERS = """\
# mine
apiVersion: v1
clusters:
- cluster:
    certificate-authority: ca.crt
    server: https://example.org
  name: work
contexts:
- context: {cluster: work, namespace: teams, user: me}
  name: work
current-context: work
kind: Config
users:
- name: me
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: ./login, interactiveMode: Never}
"""


@pytest.fixture
def one(tmp_path: Path) -> Place:
    """The folder of a cluster, as a supervisor leaves it."""
    made = place(tmp_path / "outputs", "a")
    made.folder.mkdir(parents=True)
    made.write_file("kubeconfig", kubeconfig.named(OWN, "a"))
    return made


@pytest.fixture
def view(programs: Programs) -> Callable[[Path], Any]:
    def look(file: Path) -> Any:
        words = [str(programs.kubectl), "config", "view", "--raw", f"--kubeconfig={file}", "--output=json"]
        return json.loads(subprocess.run(words, capture_output=True, check=True).stdout)

    return look


def test_names_of_a_cluster(one: Place, view: Callable[[Path], Any]) -> None:
    found = view(one.kubeconfig)
    assert [[each["name"] for each in found[part]] for part in ("clusters", "contexts", "users")] == [
        ["sandkube-a"]
    ] * 3
    assert found["contexts"][0]["context"] == {"cluster": "sandkube-a", "user": "sandkube-a"}
    assert found["current-context"] == "sandkube-a"


def test_a_kubeconfig_that_is_not_there_is_made(one: Place, programs: Programs, view: Callable[[Path], Any]) -> None:
    file = one.folder.parents[2] / "home/.kube/config"
    kubeconfig.merge(one, programs.kubectl, file)
    assert view(file) == view(one.kubeconfig)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [*file.parent.iterdir()] == [file]
    stop.clear(one)
    assert view(file)["contexts"] is None
    assert view(file)["current-context"] == ""


def test_what_others_have_stays(one: Place, programs: Programs, tmp_path: Path, view: Callable[[Path], Any]) -> None:
    """Entries and relative paths, mode and owner, and the link to the file."""
    real, file = tmp_path / "dotfiles", tmp_path / "config"
    real.write_text(OTHERS)
    before = view(real)
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 65534, 65534)
    file.symlink_to(real)
    owner = real.stat().st_uid
    for _ in range(2):  # a second time is the same
        kubeconfig.merge(one, programs.kubectl, file)
        found = view(file)
        assert found["current-context"] == "sandkube-a"
        for part in ("clusters", "contexts", "users"):
            both = [*view(one.kubeconfig)[part], *before[part]]
            assert found[part] == sorted(both, key=lambda each: str(each["name"]))
    assert file.is_symlink()
    assert (real.stat().st_mode & 0o777, real.stat().st_uid) == (0o640, owner)
    stop.clear(one)
    assert view(file) == before, "and the context that was the current one is it again"


def test_a_context_that_somebody_chose_stays_the_current_one(
    one: Place, programs: Programs, tmp_path: Path, view: Callable[[Path], Any]
) -> None:
    file = tmp_path / "config"
    file.write_text(OTHERS.replace("current-context: work", "current-context: gone"))
    kubeconfig.merge(one, programs.kubectl, file)
    file.write_text(file.read_text().replace("current-context: sandkube-a", "current-context: work"))
    kubeconfig.unmerge(one)
    assert view(file)["current-context"] == "work"
    kubeconfig.merge(one, programs.kubectl, file)
    file.write_text(file.read_text().replace("name: work\n", "name: other\n"))
    kubeconfig.unmerge(one)
    assert view(file)["current-context"] == "", "the one before is not there any more"


def test_a_cluster_of_the_same_name_from_elsewhere_stays(
    one: Place, programs: Programs, tmp_path: Path, view: Callable[[Path], Any]
) -> None:
    file = tmp_path / "config"
    kubeconfig.merge(one, programs.kubectl, file)
    other = place(tmp_path / "elsewhere", "a")
    other.folder.mkdir(parents=True)
    other.write_file("kubeconfig", kubeconfig.named(OWN.replace("QUJD", "REVG"), "a"))
    kubeconfig.merge(other, programs.kubectl, file)
    kubeconfig.unmerge(one)
    assert view(file) == view(other.kubeconfig)


def test_a_damaged_kubeconfig_is_a_sentence_and_stays(
    one: Place, programs: Programs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config"
    file.write_text("clusters: [")
    with pytest.raises(UserError, match=f"^{file} is no kubeconfig: error loading config file .*did not find expected"):
        kubeconfig.merge(one, programs.kubectl, file)
    assert file.read_text() == "clusters: ["
    assert {each.name for each in tmp_path.iterdir()} == {"config", "outputs"}
    file.unlink()
    kubeconfig.merge(one, programs.kubectl, file)
    file.write_text("clusters: [")
    stop.clear(one)
    assert capsys.readouterr().err.startswith(f"{file} still has the context sandkube-a, its cluster and its user: ")
    assert file.read_text() == "clusters: ["
    assert not one.folder.exists()


def test_whoever_has_the_lock_is_waited_for(
    one: Place, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kubectl refuses to write meanwhile."""
    file, lock = tmp_path / "config", tmp_path / "config.lock"
    file.write_text(OTHERS)
    lock.touch()
    words = [str(programs.kubectl), f"--kubeconfig={file}", "config", "use-context", "work"]
    assert b"config.lock: file exists" in subprocess.run(words, capture_output=True, check=False).stderr
    threading.Timer(0.5, lock.unlink).start()
    kubeconfig.merge(one, programs.kubectl, file)
    assert not lock.exists()
    lock.touch()
    monkeypatch.setattr(kubeconfig, "_PATIENCE", 0.2)
    before = file.read_text()
    with pytest.raises(UserError, match=f"^{lock} is there: another program changes {file}, or was killed"):
        kubeconfig.merge(one, programs.kubectl, file)
    assert (file.read_text(), lock.exists()) == (before, True)


def test_which_file_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As kubectl has it (tools/clientcmd, GetDefaultFilename)."""
    monkeypatch.setenv("HOME", str(tmp_path))
    first, second = tmp_path / "first", tmp_path / "second"
    both = {"KUBECONFIG": f"{first}:{second}"}
    assert kubeconfig.user_file({}) == tmp_path / ".kube/config"
    assert kubeconfig.user_file({"KUBECONFIG": f":{first}"}) == first
    assert kubeconfig.user_file(both) == second
    second.touch()
    assert kubeconfig.user_file(both) == second
    first.touch()
    assert kubeconfig.user_file(both) == first
