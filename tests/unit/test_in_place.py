"""The node's folder, made here or in an archive, from a bundle that links to its root file system in the store."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from sandkube import pack
from sandkube.cluster import in_place


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "store/root/bin").mkdir(parents=True)
    (tmp_path / "store/root/bin/sh").write_text("#!")
    (tmp_path / "store/root/bin/sh").chmod(0o555)
    (tmp_path / "store/root/etc").symlink_to("/none")
    (tmp_path / "store/root/usr/share/sandkube").mkdir(parents=True)
    (tmp_path / "store/root/usr/share/sandkube/starter").write_text("#!/bin/sh\n")
    (tmp_path / "store/root/usr/share/sandkube/starter").chmod(0o555)
    (tmp_path / "store/bundle").mkdir()
    (tmp_path / "store/bundle/rootfs").symlink_to("../root")
    return tmp_path / "store/bundle"


def test_made_here_it_can_be_written_to(bundle: Path, tmp_path: Path) -> None:
    in_place.make(bundle, tmp_path / "made", b"")
    assert oct((tmp_path / "made/rootfs/bin/sh").stat().st_mode) == "0o100755"
    assert str((tmp_path / "made/rootfs/etc").readlink()) == "/none"
    assert not (tmp_path / "made/rootfs").is_symlink()
    assert (tmp_path / "made/sandkube").read_text() == "#!/bin/sh\n"
    assert not (tmp_path / "made/settings.json").exists()


def test_its_settings_are_beside_it_for_nobody_else(bundle: Path, tmp_path: Path) -> None:
    in_place.make(bundle, tmp_path / "made", b"{}")
    assert (tmp_path / "made/settings.json").read_bytes() == b"{}"
    assert (tmp_path / "made/settings.json").stat().st_mode & 0o777 == 0o600


def test_exported_it_is_whole_and_the_store_as_it_was(bundle: Path, tmp_path: Path) -> None:
    before = (bundle.parent / "root/bin/sh").stat()
    pack.write_tar_gz(in_place.places(bundle), tmp_path / "node.tar.gz", mtime=1)
    after = (bundle.parent / "root/bin/sh").stat()
    assert (after.st_mode, after.st_nlink, after.st_ctime_ns) == (before.st_mode, 1, before.st_ctime_ns)
    with tarfile.open(tmp_path / "node.tar.gz") as written:
        assert [(each.name, each.type, oct(each.mode)) for each in written] == [
            ("sandkube-node", tarfile.DIRTYPE, "0o755"),
            ("sandkube-node/rootfs", tarfile.DIRTYPE, "0o755"),
            ("sandkube-node/rootfs/bin", tarfile.DIRTYPE, "0o755"),
            ("sandkube-node/rootfs/bin/sh", tarfile.REGTYPE, "0o755"),
            ("sandkube-node/rootfs/etc", tarfile.SYMTYPE, "0o777"),
            ("sandkube-node/rootfs/usr", tarfile.DIRTYPE, "0o755"),
            ("sandkube-node/rootfs/usr/share", tarfile.DIRTYPE, "0o755"),
            ("sandkube-node/rootfs/usr/share/sandkube", tarfile.DIRTYPE, "0o755"),
            ("sandkube-node/rootfs/usr/share/sandkube/starter", tarfile.REGTYPE, "0o755"),
            ("sandkube-node/sandkube", tarfile.REGTYPE, "0o755"),
        ]
