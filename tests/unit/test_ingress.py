"""A cluster with an ingress controller or a registry: what it boots, what is said where it cannot be had."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from sandkube.app.installed import Installed
from sandkube.app.run_cluster import _bundle
from sandkube.build import recipe
from sandkube.cluster import programs, workloads
from sandkube.cluster.configured import Configured, configure
from sandkube.cluster.place import Place, place
from sandkube.errors import Problems, UserError

ROOT = Path(__file__).resolve().parents[2]
WANTED = configure(None, {"ingress": {"enabled": True}}, str)
PUSHED = configure(None, {"registry": {"port": 5002}}, str)


def installed(folder: Path) -> Installed:
    """A package as the wheel has it."""
    (folder / "payload").mkdir()
    trees = dict.fromkeys(("bundle", "gvisor", "rootfs"), "0" * 64)
    (folder / "payload/trees.json").write_text(json.dumps(trees))
    return Installed({"HOME": str(folder)}, folder / "payload")


def test_the_bundle_of_a_cluster_is_chosen_by_its_settings() -> None:
    assert (Configured().ingress, WANTED.ingress) == (False, True)
    assert [programs.bundle_for(each) for each in (Configured(), WANTED)] == ["bundle", "bundle-ingress"]
    assert programs.products("modern", "bundle-ingress") == ("bundle-ingress", "kubectl", "gvisor")
    assert [programs.beside(each) for each in (Configured(), PUSHED)] == [(), ("registry",)]
    assert programs.products("linux", "bundle-ingress") == ("bundle-ingress", "kubectl")
    made = programs.chosen("linux", Path, (), "bundle-ingress")
    assert (made.bundle, made.runsc) == (Path("bundle-ingress"), Path("bundle-ingress/rootfs/usr/bin/userns").resolve())


def test_data_that_stay_keep_their_controller(tmp_path: Path) -> None:
    """A cluster that had one comes back with it, and loses it by other settings."""
    one = place(tmp_path, "kept")
    one.data.mkdir(parents=True)
    WANTED.write(one)
    home = AnyProduct()
    other = configure(None, {"verbosity": 2}, str)
    assert [_bundle(home, one, each) for each in (Configured(), other)] == [("bundle-ingress", ()), ("bundle", ())]  # type: ignore[arg-type]


class AnyProduct:
    """A home in which everything can be had."""

    def has(self, _name: str) -> bool:
        """It can."""
        return True


def test_an_installed_package_has_none(tmp_path: Path) -> None:
    one = Place(tmp_path / "clusters/a")
    assert _bundle(installed(tmp_path), one, Configured()) == ("bundle", ())
    with pytest.raises(UserError, match="^there is no ingress controller in this package\n") as caught:
        _bundle(Installed({"HOME": str(tmp_path)}, tmp_path / "payload"), one, WANTED)
    assert caught.value.hint == "a checkout of Sandkube builds it: ./do run-cluster --ingress there"
    with pytest.raises(UserError, match="^there is no registry in this package\n"):
        _bundle(Installed({"HOME": str(tmp_path)}, tmp_path / "payload"), one, PUSHED)


def test_it_goes_with_services() -> None:
    with pytest.raises(Problems, match=r"ingress\.enabled: needs the part services, which is disabled"):
        configure(None, {"disable": ["services"], "ingress": {"enabled": True}}, str)


def test_its_file_system_is_the_nodes_but_for_images_and_kinds() -> None:
    loaded = recipe.load(ROOT)
    mine, its = loaded["rootfs-ingress"].build, loaded["rootfs"].build
    own = [each for each in mine.install if "definitions" not in each.to]
    other = [dataclasses.replace(each, from_="images") if each.from_ == "images-ingress" else each for each in own]
    assert dataclasses.replace(mine, install=tuple(other)) == its
    assert loaded["images-ingress"].build.images == (*loaded["images"].build.images, "image-traefik")
    made = ("traefik", "traefik-files", "gateway-api", "image-traefik", "images-ingress", "rootfs-ingress")
    assert all(loaded[name].optional for name in (*made, "bundle-ingress"))


def test_versions_are_the_same_everywhere() -> None:
    loaded = recipe.load(ROOT)
    source, files, kinds = (loaded[name].source for name in ("traefik", "traefik-files", "gateway-api"))
    assert source
    assert files
    assert kinds
    assert source == files
    version = source.version.removeprefix("v")
    objects = (ROOT / "native/rootfs/etc/sandkube/system/ingress.yaml").read_text()
    image = f"sandkube.local/traefik:{version}"
    assert loaded["image-traefik"].build.name == image
    assert re.findall(r"image: (\S+)", objects) == [image]
    assert f"name: {workloads.INGRESS.partition('/')[2]}\n" in objects
    page = (ROOT / "README.md").read_text()
    assert f"traefik {version} " in page
    assert f"Gateway API {kinds.version.removeprefix('v')}" in page
    assert any(version in each for each in loaded["traefik"].build.ldflags)
