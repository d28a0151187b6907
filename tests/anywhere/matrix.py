"""Places where Sandkube is run, and what comes of it: the table of the README is made of this, and tests of each row.

A row's container is started, one small step is built anew in it, a cluster is booted and stopped. Each of the two
works, or ends at once with a sentence that names cause and cure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.anywhere.checkouts import STEP
from tests.anywhere.containers import CAPABILITIES, DEFAULT_CAPABILITIES, MACHINE, STRANGER, USER, Container
from tests.anywhere.engines import mapped


@dataclass(frozen=True, slots=True)
class Works:
    """It works; in this kind of sandbox, if it is a cluster."""

    kind: str = ""

    @property
    def cell(self) -> str:
        """For the README."""
        return f"`{self.kind}`" if self.kind else "works"


@dataclass(frozen=True, slots=True)
class Says:
    """It ends with this sentence and this hint; `gist` is for the README."""

    gist: str
    sentence: str
    hint: str

    @property
    def cell(self) -> str:
        """For the README."""
        return f"a sentence: {self.gist}"


Outcome = Works | Says


DEFAULTS = Container()


@dataclass(frozen=True, slots=True)
class Row:
    """One place. `engine` is a kind of `Yard.engine`; `prelude` is a program that starts the rest, as `user` if that
    is not the container's. `step` is what is built: a small C program, which no cluster is made of, if not said.
    """

    name: str
    engine: str
    build: Outcome
    cluster: Outcome
    container: Container = DEFAULTS
    prelude: Sequence[str] = ()
    user: int | None = None
    step: str = STEP

    @property
    def owner(self) -> int:
        """The number that this machine has for the row's user."""
        user = self.container.user if self.user is None else self.user
        return mapped(user) if self.engine == "podman" else user


_TOO_NEW = ("PERFMON", "BPF", "CHECKPOINT_RESTORE")
"""Capabilities that Debian 12's Docker does not know by name."""
NEARLY_PRIVILEGED = replace(
    MACHINE, capabilities=tuple(each for each in MACHINE.capabilities or () if each not in _TOO_NEW)
)
"""Where this machine cannot give all that `--privileged` asks for."""
RESTRICTED = Container(
    user=USER, capabilities=(), no_new_privileges=True, read_only=True, tmpfs=("/tmp",), memory=1 << 30
)
WITH_ADMIN = Container(capabilities=(*DEFAULT_CAPABILITIES, "SYS_ADMIN"))
IN_NAMESPACE = replace(MACHINE, capabilities=CAPABILITIES)
AS_USER = replace(MACHINE, user=USER)
OF_ANOTHER = replace(AS_USER, env=("HOME=/root",))
_LIMITED = ("sh", "-c", 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"', "sh")
_BECOME = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all")
_APPARMOR = ("mount", "pivot_root", "sethostname", "umount2")
"""What fails in a user namespace under Ubuntu's rule: it may be made, and gives no powers."""

_OTHER_WAYS = (
    "or bring outputs/store and outputs/result of a clone that is built (./do export-node packs a node there); "
    "or add --no-build-sandbox, which builds without one and marks what it makes"
)
_OPTIONS = "--security-opt seccomp=unconfined --security-opt systempaths=unconfined"
_NAMES = ("user namespaces", "process namespaces", "network namespaces", "IPC and host name namespaces")
_ALL = (*_NAMES, "mounts", "pivot_root")


def refuses(*names: str, gist: str) -> Says:
    """What a build says in a container that refuses these."""
    told = ", ".join(f"{each} (Operation not permitted)" for each in names)
    return Says(
        gist,
        f"no build sandbox can be made: this container refuses {told}",
        f"give the container {_OPTIONS} (docker), or start it with podman; {_OTHER_WAYS}",
    )


NOTHING = refuses(*_ALL, gist="namespaces are refused, three ways out")
NO_ROOT = refuses("pivot_root", gist="`pivot_root` is refused, three ways out")
NO_POWERS = refuses("mounts", "pivot_root", gist="mounts are refused, three ways out")
LIMIT = Says(
    "the setting, and how to change it",
    "no build sandbox can be made: this machine allows no more user namespaces: user.max_user_namespaces is 0",
    f"as root of the machine: sysctl -w user.max_user_namespaces=10000; {_OTHER_WAYS}",
)
IN_PLACE = Says(
    "`--in-place` runs there",
    "cluster default: sandbox failed: the sandbox ended (exit status 128)",
    "inside of a sandbox no other can be started; there the node runs in place: ./do run-cluster --in-place",
)


def no_cache(home: str) -> Says:
    """What a build says where the home is not this user's to write."""
    return Says(
        "the cache folder, and the variable that moves it",
        f"the cache folder {home}/.cache/sandkube cannot be used: Permission denied",
        "set XDG_CACHE_HOME to a folder that this user can write",
    )


ROWS: Sequence[Row] = (
    Row("Linux, root", "machine", Works(), Works("modern"), MACHINE),
    Row("Linux, user", "machine", Works(), Works("modern"), AS_USER),
    Row("Docker, root", "docker", NOTHING, Works("confined")),
    Row("Docker, user", "docker", NOTHING, Works("confined"), Container(user=USER)),
    Row("Docker, user without an account", "docker", NOTHING, Works("confined"), Container(user=STRANGER)),
    Row("Docker, user, as a restricted pod", "docker", NOTHING, Works("confined"), RESTRICTED),
    Row("Docker, user, 512 MB", "docker", NOTHING, Works("confined"), Container(user=USER, memory=512 << 20)),
    Row("Docker `--cap-add SYS_ADMIN`", "docker", NO_ROOT, Works("confined"), WITH_ADMIN),
    Row("Docker `seccomp=unconfined`, root", "docker", Works(), Works("modern"), Container(seccomp=False)),
    Row("Docker `seccomp=unconfined`, user", "docker", Works(), Works("modern"), Container(seccomp=False, user=USER)),
    Row(
        "Docker `seccomp=unconfined` `systempaths=unconfined`, root",
        "docker",
        Works(),
        Works("modern"),
        Container(seccomp=False, masks=False),
    ),
    Row(
        "Docker `seccomp=unconfined` `systempaths=unconfined`, user",
        "docker",
        Works(),
        Works("modern"),
        Container(seccomp=False, masks=False, user=USER),
    ),
    Row("Docker `--privileged`", "docker", Works(), Works("modern"), Container(privileged=True)),
    Row("rootless podman, root", "podman", Works(), Works("modern")),
    Row("rootless podman, user", "podman", Works(), Works("modern"), Container(user=USER)),
    Row("podman of root, root", "podman of root", Works(), Works("modern")),
    Row("podman of root, user", "podman of root", Works(), Works("modern"), Container(user=USER)),
    Row("`max_user_namespaces=0`, root", "namespace", Works(), Works("confined"), IN_NAMESPACE, _LIMITED),
    Row(
        "`max_user_namespaces=0`, user",
        "namespace",
        LIMIT,
        Works("confined"),
        IN_NAMESPACE,
        (*_LIMITED, *_BECOME),
        USER,
    ),
    Row("Ubuntu's AppArmor rule, user", "machine", NO_POWERS, Works("confined"), replace(AS_USER, forbidden=_APPARMOR)),
    Row("user, `/tmp` noexec", "machine", Works(), Works("modern"), replace(AS_USER, tmpfs=("/tmp:noexec",))),
    Row(
        "user, home that may not be written",
        "machine",
        no_cache("/usr/share"),
        Works("modern"),
        replace(AS_USER, env=("HOME=/usr/share",)),
    ),
    Row(
        "user, home that may not be read",
        "machine",
        no_cache("/root"),
        Works("modern"),
        replace(AS_USER, env=("HOME=/root",)),
    ),
    Row("user, `HOME` not set", "machine", Works(), Works("modern"), AS_USER, ("env", "-u", "HOME")),
    Row("user, no `/dev/shm`", "machine", Works(), Works("modern"), replace(AS_USER, shm=0)),
    Row("user, 1 MB of `/dev/shm`", "machine", Works(), Works("modern"), replace(AS_USER, shm=1 << 20)),
    Row("user, 1,024 descriptors", "machine", Works(), Works("modern"), replace(AS_USER, files=1024)),
    Row("inside gVisor, root", "gvisor", Works(), IN_PLACE, Container(seccomp=False, masks=False), step="image-test"),
)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A row that another test has: `test` is its name in `tests/anywhere`."""

    name: str
    build: Outcome
    cluster: Outcome | None
    test: str


RELEASES: Sequence[Elsewhere] = (
    Elsewhere("Debian 13, user", Works(), Works("modern"), "test_roots.py::test_a_newcomer_in_debian_13"),
    Elsewhere("a distribution without apt, user", Works(), None, "test_roots.py::test_without_apt"),
)
HEADER = ("| place | `./do build` | `./do run-cluster` |", "| --- | --- | --- |")


def table() -> str:
    """The README's table."""
    rows = []
    places: Sequence[Elsewhere | Row] = (*RELEASES, *ROWS)
    for each in places:
        cluster = each.cluster.cell if each.cluster else "not tried"
        rows.append(f"| {each.name} | {each.build.cell} | {cluster} |")
    return "\n".join([*HEADER, *rows])
