"""The worker's composition root: where model hosts may write."""

import tempfile
from pathlib import Path

import pytest

from services.worker.main import scratch_root


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_hosts_write_below_a_folder_of_this_user_alone(temporary_folder: Path) -> None:
    root = scratch_root()
    assert root.parent == temporary_folder
    assert root.stat().st_mode & 0o777 == 0o700
    assert scratch_root() == root


def test_a_folder_that_somebody_else_put_there_is_not_used(temporary_folder: Path, tmp_path: Path) -> None:
    root = scratch_root()
    root.rmdir()
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match="belongs to somebody else"):
        scratch_root()
