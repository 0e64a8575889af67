"""The mounted volume: whole files or none, names of the server's own, and a full disk said as such."""

import errno
import hashlib
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from services.core.blobs import COPY_BYTES, FAMILIES, FOLDERS, INPUTS, MODELS, RESULTS, Blobs, mapped
from services.core.errors import StorageAway, StorageFull
from services.core.pending_file import PendingFile

JOB_ID = UUID(int=7)
TOKEN = UUID(int=9)
BODY = bytes(range(256)) * 40


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    blobs = Blobs(tmp_path)
    blobs.prepare()
    return blobs


def everything(blobs: Blobs) -> list[str]:
    """Every file on the volume."""
    return sorted(str(path.relative_to(blobs.root)) for path in blobs.root.rglob("*") if path.is_file())


# --- Whole or none -------------------------------------------------------------------------------------------


def test_preparing_makes_the_folders_and_can_be_repeated(blobs: Blobs) -> None:
    blobs.prepare()
    assert sorted(path.name for path in blobs.root.iterdir()) == sorted(FOLDERS)


def test_a_file_is_seen_once_it_is_whole(blobs: Blobs) -> None:
    # Given an upload that is being written
    with blobs.new_input(JOB_ID) as pending:
        pending.write(BODY[:100])
        pending.write(memoryview(BODY)[100:])
        pending.write(b"")
        # Then nothing of its name is there
        assert everything(blobs) == [f"{INPUTS}/{JOB_ID}.pb.part"]
        # When it is committed, Then it is there whole
        pending.commit()
        assert everything(blobs) == [f"{INPUTS}/{JOB_ID}.pb"]
    assert pending.size_bytes == len(BODY)
    assert blobs.input_path(f"{JOB_ID}.pb").read_bytes() == BODY


@pytest.mark.parametrize("error", [LookupError("cut off"), KeyboardInterrupt()])
def test_a_file_that_is_given_up_leaves_nothing(blobs: Blobs, error: BaseException) -> None:
    with pytest.raises(type(error)), blobs.new_input(JOB_ID) as pending:
        pending.write(BODY)
        raise error
    with blobs.new_result(JOB_ID, TOKEN) as pending:
        pending.write(BODY)
    assert everything(blobs) == []


def test_two_writers_cannot_share_a_name(blobs: Blobs) -> None:
    with blobs.new_input(JOB_ID) as first:
        with pytest.raises(FileExistsError), blobs.new_input(JOB_ID):
            pass
        first.write(BODY)
        first.commit()
    assert everything(blobs) == [f"{INPUTS}/{JOB_ID}.pb"]


def test_a_closed_file_takes_nothing_more(blobs: Blobs) -> None:
    pending = blobs.new_input(JOB_ID)
    with pytest.raises(ValueError, match="not open"):
        pending.write(BODY)
    with pending:
        pending.commit()
        with pytest.raises(ValueError, match="not open"):
            pending.write(BODY)
        with pytest.raises(ValueError, match="not open"):
            pending.commit()


def test_file_and_folder_are_on_the_disk_before_commit_returns(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a look at what is flushed, and whether the file has its name by then
    target = blobs.input_path(f"{JOB_ID}.pb")
    flushed: list[tuple[str, bool]] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, target.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    # When a file is committed
    with blobs.new_input(JOB_ID) as pending:
        pending.write(BODY)
        pending.commit()
    # Then first the bytes were flushed under the temporary name, then the folder with the name
    assert flushed == [(f"{JOB_ID}.pb.part", False), (INPUTS, True)]


def test_files_are_readable_by_the_group_at_most(blobs: Blobs, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with blobs.new_input(JOB_ID) as pending:
            assert stat.S_IMODE(pending.partial.stat().st_mode) == 0o640
            pending.commit()
        (tmp_path / "m.pt").write_bytes(b"m")
        name = blobs.store_model_file(tmp_path / "m.pt").name
        blobs.publish_family(1, b"f")
    finally:
        os.umask(before)
    paths = (pending.target, blobs.model_path(name), blobs.root / FAMILIES / "1.pb")
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o640}


# --- A volume without room -----------------------------------------------------------------------------------

FILL = """
import resource, sys
from pathlib import Path
from uuid import UUID
from services.core.blobs import Blobs
from services.core.errors import StorageFull
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
blobs = Blobs(Path(sys.argv[1]))
try:
    with blobs.new_input(UUID(int=7)) as pending:
        while True:
            pending.write(b"x" * 4096)
except StorageFull as error:
    print(pending.size_bytes, error.details)
"""


def test_a_file_over_the_systems_own_limit_is_storage_full_and_leaves_nothing(blobs: Blobs) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    ran = subprocess.run(
        [sys.executable, "-c", FILL, str(blobs.root)], capture_output=True, encoding="utf-8", check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("10000 The server's volume for payloads is full")
    assert everything(blobs) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_no_room_is_storage_full_wherever_it_shows(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    write = refusing(monkeypatch, call, code, blobs)
    with pytest.raises(StorageFull, match="free space"):
        write()
    assert everything(blobs) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ESTALE])
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_volume_that_fails_is_away(blobs: Blobs, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    write = refusing(monkeypatch, call, code, blobs)
    with pytest.raises(StorageAway, match="look at the mount"):
        write()
    assert everything(blobs) == []


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_other_faults_stay_what_they_are(blobs: Blobs, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    write = refusing(monkeypatch, call, errno.EINVAL, blobs)
    with pytest.raises(OSError, match="Invalid argument"):
        write()
    assert everything(blobs) == []


def test_a_filesystem_that_cannot_flush_folders_is_good_enough(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    with blobs.new_input(JOB_ID) as pending:
        pending.commit()
    assert everything(blobs) == [f"{INPUTS}/{JOB_ID}.pb"]


def refusing(monkeypatch: pytest.MonkeyPatch, call: str, code: int, blobs: Blobs) -> Callable[[], None]:
    """Writes an input while the system refuses `call`."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    def write() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse)
            with blobs.new_input(JOB_ID) as pending:
                pending.write(BODY)
                pending.commit()

    return write


@pytest.mark.parametrize("obstacle", ["missing", "a file"])
def test_a_volume_that_cannot_be_written_says_what_is_in_the_way(tmp_path: Path, obstacle: str) -> None:
    blobs = Blobs(tmp_path / "volume")
    if obstacle == "a file":
        blobs.root.mkdir()
        (blobs.root / INPUTS).touch()
    said = blobs.check()
    assert said is not None
    assert said.startswith(f"{blobs.root / INPUTS}: ")
    # and a good one says nothing and keeps nothing
    good = Blobs(tmp_path / "good")
    good.prepare()
    assert good.check() is None
    assert everything(good) == []


# --- Names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b", "a b", "a\nb", "é", "-rf", "a\\b", "x\n"]
)
def test_a_name_that_the_server_does_not_make_is_no_path(blobs: Blobs, name: str) -> None:
    for path_of in (blobs.input_path, blobs.result_path, blobs.model_path):
        with pytest.raises(ValueError, match="not a name"):
            path_of(name)
    for delete in (blobs.delete_input, blobs.delete_result, blobs.delete_model_file):
        with pytest.raises(ValueError, match="not a name"):
            delete(name)


def test_the_servers_own_names_are_paths_in_their_folders(blobs: Blobs) -> None:
    with blobs.new_result(JOB_ID, TOKEN) as pending:
        pending.commit()
    assert blobs.result_path(pending.target.name) == blobs.root / RESULTS / f"{JOB_ID}.{TOKEN}.pb"
    assert blobs.input_path(f"{JOB_ID}.pb") == blobs.root / INPUTS / f"{JOB_ID}.pb"


def test_deleting_can_be_repeated(blobs: Blobs) -> None:
    with blobs.new_input(JOB_ID) as pending:
        pending.commit()
    for _ in range(2):
        blobs.delete_input(pending.target.name)
        blobs.delete_result(pending.target.name)
        blobs.delete_model_file("0a1b")
    assert everything(blobs) == []


def test_deleting_an_attempt_takes_its_files_finished_or_not_and_no_others(blobs: Blobs) -> None:
    # Given what two attempts have left
    for token in (TOKEN, UUID(int=10)):
        with blobs.new_result(JOB_ID, token) as pending:
            pending.commit()
        pending.partial.touch()
    # When one is deleted, twice
    for _ in range(2):
        blobs.delete_attempt(JOB_ID, TOKEN)
    # Then the other's are there
    assert everything(blobs) == [f"{RESULTS}/{JOB_ID}.{UUID(int=10)}.pb", f"{RESULTS}/{JOB_ID}.{UUID(int=10)}.pb.part"]


# --- Models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, COPY_BYTES, COPY_BYTES + 1])
def test_a_model_file_is_copied_under_a_name_of_the_servers(blobs: Blobs, tmp_path: Path, size: int) -> None:
    source = tmp_path / "..my model é.pt"
    source.write_bytes(b"\x80" * size)
    stored = blobs.store_model_file(source)
    assert blobs.model_path(stored.name).read_bytes() == source.read_bytes()
    assert stored.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (stored.size_bytes, stored.uploaded_name) == (size, source.name)
    assert blobs.store_model_file(source).name != stored.name
    assert len(list((blobs.root / MODELS).iterdir())) == 2


def test_a_model_file_whose_name_is_no_text_gets_a_label_that_is(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"mod\xe8le.pt")
    source.write_bytes(b"m")
    assert blobs.store_model_file(source).uploaded_name == "mod\ufffdle.pt"


@pytest.mark.parametrize("source", ["missing.pt", "."])
def test_a_model_file_that_cannot_be_read_leaves_nothing(blobs: Blobs, tmp_path: Path, source: str) -> None:
    with pytest.raises(OSError, match=r"No such file|Is a directory"):
        blobs.store_model_file(tmp_path / source)
    assert everything(blobs) == []


# --- Published families --------------------------------------------------------------------------------------


def test_a_published_family_is_replaced_and_removed(blobs: Blobs) -> None:
    path = blobs.root / FAMILIES / "12.pb"
    for message in (b"one", b"two", b""):
        blobs.publish_family(12, message)
        assert path.read_bytes() == message
    for _ in range(2):
        blobs.publish_family(12, None)
        assert everything(blobs) == []


def test_readers_see_one_publishers_whole_message_whoever_else_publishes(blobs: Blobs) -> None:
    # Given publishers of one family whose messages are of different lengths, and a reader
    messages = {bytes([number]) * (5000 * number) for number in range(1, 5)}
    blobs.publish_family(1, min(messages))
    done = threading.Event()

    def publish(message: bytes) -> None:
        for _ in range(15):
            blobs.publish_family(1, message)

    def read() -> set[tuple[str, bytes]]:
        seen = set()
        while not done.is_set():
            visible = [path for path in (blobs.root / FAMILIES).iterdir() if path.suffix != ".part"]
            seen |= {(path.name, path.read_bytes()) for path in visible}
        return seen

    # When they all work at once
    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read)
        for publisher in [pool.submit(publish, message) for message in messages]:
            publisher.result()
        done.set()
        seen = reader.result()
    # Then there was never another file than the family's, nor any but a whole message
    assert {name for name, _ in seen} == {"1.pb"}
    assert {message for _, message in seen} <= messages
    assert everything(blobs) == [f"{FAMILIES}/1.pb"]


# --- Mapped files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"x", BODY])
def test_a_file_is_mapped_whole_and_read_only(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "f").write_bytes(body)
    view = mapped(tmp_path / "f")
    assert bytes(view) == body
    assert view.readonly
    # It can be deleted meanwhile.
    (tmp_path / "f").unlink()
    assert bytes(view) == body
    with pytest.raises(FileNotFoundError):
        mapped(tmp_path / "f")


def test_a_shared_target_is_its_last_committers(tmp_path: Path) -> None:
    target = tmp_path / "shared"
    with PendingFile(target, shared=True) as first, PendingFile(target, shared=True) as second:
        first.write(b"first")
        second.write(b"second")
        second.commit()
        first.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]
    assert target.read_bytes() == b"first"
