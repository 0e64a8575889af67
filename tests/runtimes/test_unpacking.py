"""A zip is unpacked whole, or refused with its own message and nothing left behind."""

import os
import stat
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.core.errors import ModelFailed
from services.worker.runtimes.unpacking import unpacked

Make = Callable[[zipfile.ZipFile], None]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary directory of this test, two folders down so that `../..` would still be the test's."""
    folder = tmp_path / "a" / "scratch"
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder


def zipped(folder: Path, make: Make, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "model.zip"
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings(action="ignore"):
        make(archive)
    return path


def member(name: str, mode: int = 0, content: bytes = b"x") -> Make:
    def make(archive: zipfile.ZipFile) -> None:
        archive.writestr("good.txt", "good")
        info = zipfile.ZipInfo("stand-in")
        info.filename = name  # as it is, without what the constructor makes of it
        info.external_attr = mode << 16
        archive.writestr(info, content)

    return make


def both(*makes: Make) -> Make:
    def make(archive: zipfile.ZipFile) -> None:
        for each in makes:
            each(archive)

    return make


def huge(archive: zipfile.ZipFile) -> None:
    with archive.open("zeros", "w") as file:
        for _ in range(20):
            file.write(bytes(2**20))


def many(archive: zipfile.ZipFile) -> None:
    for index in range(101):
        archive.writestr(f"{index}.txt", "")


BAD: dict[str, tuple[Make, str]] = {
    "nothing in it": (lambda archive: None, r"holds no files; put"),
    "folders only": (lambda archive: archive.mkdir("empty"), r"holds no files; put"),
    "only what the Finder adds": (lambda archive: archive.writestr("__MACOSX/._a", "x"), r"holds no files; put"),
    "parent": (member("../evil.txt"), r"member '\.\./evil\.txt' would be written outside the model's folder; pack"),
    "parent within": (member("a/../../evil.txt"), r"would be written outside"),
    "absolute": (member("/tmp/evil.txt"), r"'/tmp/evil\.txt' would be written outside"),
    "backslashes": (member("..\\evil.txt"), r"would be written outside"),
    "a drive": (member("C:/evil.txt"), r"would be written outside"),
    "the folder itself": (member("."), r"'\.' would be written outside"),
    "a line break": (member("a\nb"), r"has characters that no file name has"),
    "a link": (member("link", stat.S_IFLNK | 0o777, b"/etc/passwd"), r"'link' is a link or a device, not a file"),
    "a pipe": (member("pipe", stat.S_IFIFO | 0o644), r"'pipe' is a link or a device"),
    "very deep": (member("/".join("a" * 40)), r"has too long a path"),
    "a very long name": (member("a" * 300), r"has too long a path"),
    "twice": (both(member("same"), member("same")), r"two files of one name"),
    "a file as a folder": (both(member("same"), member("same/file")), r"two files of one name"),
    "too large": (huge, r"unpacks to 20 MiB, more than the 10 MiB that a model may have; leave out"),
    "too many": (many, r"holds 101 files, more than the 100 of a model; leave out"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_zip_is_refused_with_its_own_message(case: str, tmp_path: Path, scratch: Path) -> None:
    make, message = BAD[case]
    refused(zipped(tmp_path, make), message)
    # Nothing was written, neither in the scratch folder nor around it
    assert list(scratch.iterdir()) == []
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "scratch", "model.zip"}
    assert not Path("/tmp/evil.txt").exists()


def refused(path: Path, message: str, most_bytes: int = 10 * 2**20) -> None:
    with pytest.raises(ModelFailed, match=message) as failure:
        unpacked(path, most_bytes=most_bytes, most_files=100)
    assert failure.value.details.endswith(".")
    assert "\n" not in failure.value.details


def test_files_that_are_no_zip(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello", encoding="ascii")
    refused(tmp_path / "gone", r"cannot be read \(No such file.*attach it again")
    refused(tmp_path / "empty", r"is empty; save the model again")
    refused(tmp_path / "text", r"is not a zip; put the model's files into one")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_noticed_and_leaves_nothing(compression: int, tmp_path: Path, scratch: Path) -> None:
    # Given a zip whose second member is damaged in its middle
    path = zipped(tmp_path, member("data", content=os.urandom(5000)), compression)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("data").header_offset
        place = start + 30 + len("data") + archive.getinfo("data").compress_size // 2
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)
    # When it is unpacked, then it is refused, and the first member is gone as well
    refused(path, r"The zip is damaged or packed in a way that cannot be read")
    assert list(scratch.iterdir()) == []


def test_a_truncated_zip(tmp_path: Path, scratch: Path) -> None:
    path = zipped(tmp_path, member("data", content=os.urandom(5000)))
    path.write_bytes(path.read_bytes()[:2000])
    refused(path, r"is cut short; copy or pack it again")


def test_an_encrypted_member(tmp_path: Path, scratch: Path) -> None:
    path = zipped(tmp_path, member("secret"))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 8
    content[place] |= 1
    path.write_bytes(content)
    refused(path, r"'secret' is encrypted; pack")


def test_a_member_that_lies_about_its_size_writes_no_more_than_it_said(tmp_path: Path, scratch: Path) -> None:
    # Given a member of 20 MiB that says it has 100 bytes
    path = zipped(tmp_path, huge)
    content = bytearray(path.read_bytes())
    for place in (content.index(b"PK\x03\x04") + 22, content.index(b"PK\x01\x02") + 24):
        struct.pack_into("<I", content, place, 100)
    path.write_bytes(content)
    # When it is unpacked, then that is damage
    refused(path, r"The zip is damaged")
    assert list(scratch.iterdir()) == []


def test_the_limit_of_the_hosts_scratch_folder_holds_too(tmp_path: Path) -> None:
    # Given a process that may write 4 MiB, as a host of that scratch limit may
    path = zipped(tmp_path, huge)
    code = (
        "import resource, sys, pathlib\n"
        "from services.worker.runtimes.unpacking import unpacked\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, 2**22))\n"
        "unpacked(pathlib.Path(sys.argv[1]), most_bytes=2**30, most_files=10)\n"
    )
    # When it unpacks more, then it says which setting to raise
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "unpacks to 20 MiB, more than the 4 MiB of the model's scratch folder; raise SEGINT_MODEL" in ended.stderr


def test_a_scratch_folder_that_cannot_be_written_to_is_said(tmp_path: Path, scratch: Path) -> None:
    path = zipped(tmp_path, member("data"))
    scratch.rmdir()
    refused(path, r"cannot be unpacked into the model's scratch folder \(No such file or directory\); make room on")


def test_what_is_good_comes_out_as_it_was(tmp_path: Path, scratch: Path) -> None:
    # Given a zip with folders, and what the Finder of macOS adds
    def make(archive: zipfile.ZipFile) -> None:
        archive.mkdir("model")
        archive.writestr("model/variables/data", b"\0" * 1000)
        archive.writestr("model/Größe.txt", "ß")
        archive.writestr("__MACOSX/model/._x", "x")

    # When it is unpacked
    folder = unpacked(zipped(tmp_path, make), most_bytes=2000, most_files=3)
    # Then its files are there, below the temporary directory, and no others
    assert folder.parent == scratch
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "model/variables/data",
        "model/Größe.txt",
    }
    assert (folder / "model/variables/data").read_bytes() == b"\0" * 1000
