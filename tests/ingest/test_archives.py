"""Archives are unpacked without trusting them: nothing is written outside, and each member left out is listed."""

from __future__ import annotations

import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest

from frostline.errors import DataError
from frostline.ingest import archives
from frostline.ingest.archives import is_archive, unpack
from frostline.ingest.sources import open_source

CONTENT = {"ant/1.png": b"one", "ant/deep/2.png": b"two", "bee/3.png": b"three"}


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, members: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, f"w:{path.suffix[1:] if path.suffix != '.tar' else ''}") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
        for info in others:
            archive.addfile(info)
    return path


def special_member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def unpack_all(archive: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """The unpacked files, and the reasons for the others. Checks that nothing else in the folder has changed."""
    home = archive.parent
    before = set(home.rglob("*"))
    folder = home / "out"
    folder.mkdir()
    problems = unpack(archive, folder)
    assert {path for path in home.rglob("*") if not path.is_relative_to(folder)} == before
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files, {problem.path: problem.reason for problem in problems}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_every_kind_is_unpacked(tmp_path: Path, name: str) -> None:
    archive = (make_zip if name.endswith("zip") else make_tar)(tmp_path / name, CONTENT)
    assert is_archive(archive)
    assert unpack_all(archive) == (CONTENT, {})


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    evil = {"../up.png": b"x", "/tmp/root.png": b"x", "ant/../../up.png": b"x", "C:\\windows.png": b"x"}
    archive = (make_zip if name.endswith("zip") else make_tar)(tmp_path / name, CONTENT | evil)
    files, reasons = unpack_all(archive)
    assert files == CONTENT
    assert reasons == dict.fromkeys(evil, "leads out of the archive")


def test_windows_names_are_understood(tmp_path: Path) -> None:
    files, _ = unpack_all(make_zip(tmp_path / "a.zip", {"ant\\1.png": b"x", "./bee/2.png": b"y"}))
    assert files == {"ant/1.png": b"x", "bee/2.png": b"y"}


def test_links_and_devices_are_left_out_and_hard_links_followed(tmp_path: Path) -> None:
    others = [
        special_member("ant/link.png", tarfile.SYMTYPE, "/etc/passwd"),
        special_member("ant/folder", tarfile.SYMTYPE, ".."),
        special_member("ant/pipe.png", tarfile.FIFOTYPE),
        special_member("ant/null.png", tarfile.CHRTYPE),
        special_member("ant/again.png", tarfile.LNKTYPE, "ant/1.png"),
        special_member("ant/astray.png", tarfile.LNKTYPE, "../../etc/passwd"),
    ]
    files, reasons = unpack_all(make_tar(tmp_path / "a.tar", CONTENT, *others))
    assert files == CONTENT | {"ant/again.png": b"one"}
    assert reasons == {
        **dict.fromkeys([f"ant/{n}" for n in ("link.png", "folder", "pipe.png", "null.png")], "a link or device"),
        "ant/astray.png": "a link to a file that is not in the archive",
    }


def test_links_in_a_zip_are_left_out(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("ant/link.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
        archive.writestr("ant/1.png", "x")
    assert unpack_all(tmp_path / "a.zip") == ({"ant/1.png": b"x"}, {"ant/link.png": "a link or device"})


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_collide_or_cannot_be_named_are_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("ant/1.png", "ant/1.png", "ant", "ant/1.png/x.png", "x" * 300 + ".png"):
            archive.writestr(name, "x")
    files, reasons = unpack_all(tmp_path / "a.zip")
    assert files == {"ant/1.png": b"x"}
    collision = "collides with a member before it"
    assert reasons == {
        "ant/1.png": collision,
        "ant": collision,
        "ant/1.png/x.png": collision,
        "x" * 300 + ".png": "can't be unpacked (File name too long)",
    }


def test_a_member_that_swells_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MEMBER_BYTES", 3 * archives.BLOCK)
    archive = make_zip(tmp_path / "a.zip", {"ant/bomb.png": bytes(4 * archives.BLOCK), "ant/1.png": b"x"})
    assert archive.stat().st_size < 20_000
    files, reasons = unpack_all(archive)
    assert files == {"ant/1.png": b"x"}
    assert list(reasons) == ["ant/bomb.png"]


def test_damaged_and_encrypted_members_are_listed(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"ant/1.png": b"x" * 100, "ant/2.png": b"y"})
    data = bytearray(archive.read_bytes())
    data[data.index(b"ant/1.png") + 12] ^= 0xFF  # in the compressed bytes
    archive.write_bytes(data)
    files, reasons = unpack_all(archive)
    assert files == {"ant/2.png": b"y"}
    assert reasons["ant/1.png"].startswith("can't be unpacked (")
    closed = make_zip(tmp_path / "b.zip", {"ant/1.png": b"x"})
    data = bytearray(closed.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + flags] |= 1
    closed.write_bytes(data)
    (tmp_path / "other").mkdir()
    problems = unpack(closed, tmp_path / "other")
    assert [problem.reason for problem in problems] == ["can't be unpacked (encrypted)"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_a_file_that_is_no_archive_or_is_truncated_is_refused(tmp_path: Path, name: str) -> None:
    archive = (make_zip if name.endswith("zip") else make_tar)(tmp_path / name, {"ant/1.png": bytes(range(256)) * 400})
    whole = archive.read_bytes()
    for data in (b"", b"these are words", whole[: len(whole) // 2]):
        archive.write_bytes(data)
        folder = tmp_path / f"out-{len(data)}"
        folder.mkdir()
        with pytest.raises(DataError, match=r"can't be unpacked \(.+\); fetch it again") as error:
            unpack(archive, folder)
        assert str(archive) in str(error.value)
        assert "\n" not in str(error.value)


def rows(archive: Path) -> list[tuple[str, str, str | None]]:
    scratch = archive.parent / f"{archive.name}-scratch"
    scratch.mkdir()
    table = open_source(archive, scratch).table.astype(object)
    return list(table.where(table.notna(), None)[["path", "label", "split"]].itertuples(index=False, name=None))


def test_an_archive_may_hold_class_folders_splits_or_a_table(tmp_path: Path) -> None:
    assert rows(make_zip(tmp_path / "a.zip", CONTENT | {"__MACOSX/ant/._1.png": b"", "LICENSE": b"CC0"})) == [
        ("ant/1.png", "ant", None),
        ("ant/deep/2.png", "ant", None),
        ("bee/3.png", "bee", None),
    ]
    nested = {f"data/train/{path}": content for path, content in CONTENT.items()} | {"data/valid/ant/4.png": b"four"}
    assert ("data/valid/ant/4.png", "ant", "val") in rows(make_tar(tmp_path / "b.tar.gz", nested))
    table = b"path,label\nimages/1.png,ant\nimages/2.png,bee\n../../secret.png,bee\n"
    members = {"set/manifest.csv": table, "set/images/1.png": b"", "set/images/2.png": b""}
    assert rows(make_zip(tmp_path / "c.zip", members)) == [("images/1.png", "ant", None), ("images/2.png", "bee", None)]


def test_an_archive_without_classes_is_refused_by_its_own_name(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"1.png": b""})
    (tmp_path / "scratch").mkdir()
    with pytest.raises(DataError, match=r"a\.zip: has no subfolders"):
        open_source(archive, tmp_path / "scratch")


def test_a_table_in_an_archive_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    table = pd.DataFrame({"path": ["/etc/passwd", "1.png"], "label": ["ant", "bee"]}).to_csv(index=False).encode()
    source = open_source(make_zip(tmp_path / "a.zip", {"manifest.csv": table, "1.png": b""}), tmp_path / "scratch")
    assert [(problem.path, problem.kind) for problem in source.problems] == [("/etc/passwd", "outside")]


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz"])
def test_an_archive_that_unpacks_to_far_too_much_is_refused_before_it_is_unpacked(tmp_path, name, monkeypatch):
    monkeypatch.setattr(archives, "FREE", 10**6)
    archive = (make_zip if name.endswith("zip") else make_tar)(
        tmp_path / name, {f"a/{i}.png": bytes(10**6) for i in range(4)}
    )
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(DataError, match=rf"{name}: unpacks to more than 100 times its size; check where it comes from"):
        unpack(archive, folder)
    assert not list(folder.iterdir())
    monkeypatch.setattr(archives, "FREE", 10**7)
    assert unpack(archive, folder) == []


def test_a_full_disk_is_reported_as_a_full_disk(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", CONTENT)
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    folder = tmp_path / "out"
    folder.mkdir()

    def copy(content, file):
        with full.open("wb", buffering=0) as device:
            device.write(content.read())

    monkeypatch.setattr(archives, "_copy", copy)
    with pytest.raises(DataError, match=r"out: has no space left to unpack .*a\.zip; free some"):
        unpack(archive, folder)
