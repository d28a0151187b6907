"""The way out to registries, as the supervisor has it: a process in the node that containerd connects to, and one here
that asks the registries, joined by a socket that is theirs alone (sandkube/cluster/pull.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from sandkube.cluster.paired import Pair
from sandkube.cluster.pull import MODULE
from sandkube.run import NETWORK_ENVIRONMENT, base_environment

_VARIABLE = "SANDKUBE_PULL"
_LOGINS = ("HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")
_HELPERS = (
    "AWS_",
    "AZURE_",
    "CLOUDSDK_",
    "GOOGLE_",
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "PASSWORD_STORE_DIR",
    "VAULT_",
)
"""What credential helpers of docker's read, or how it begins."""


def inherited(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A variable with what of the user's environment registries are asked by: the supervisor has one that is built."""
    names = (*_LOGINS, *NETWORK_ENVIRONMENT)
    taken = {key: value for key, value in environment.items() if key in names or key.startswith(_HELPERS)}
    return {_VARIABLE: json.dumps(taken)}


def _environment(folder: Path) -> dict[str, str]:
    taken: dict[str, str] = json.loads(os.environ.get(_VARIABLE, "{}"))
    return base_environment(folder) | taken


PULL = Pair(b"pull", MODULE, ("/usr/bin/sandkube-node", "pull"), _environment)
"""The two processes of it."""
