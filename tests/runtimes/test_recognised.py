"""A file of each library is known by its content, so that who named another runtime is told the right one."""

from pathlib import Path

import pytest

from services.worker.runtimes.recognised import likely_runtime, other_runtime
from tests.runtimes.artifacts import spec_of
from tests.runtimes.test_contract import KINDS

PICKLES = {"sklearn joblib"}
"""Bare ones, which could be of any library."""


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"phantom"}))
def test_a_file_is_of_its_own_runtime(kind: str, tmp_path: Path) -> None:
    spec = KINDS[kind](tmp_path, 2)
    assert spec.artifact is not None
    assert likely_runtime(spec.artifact) == (None if kind in PICKLES else spec.runtime)
    assert other_runtime(spec) == ""


@pytest.mark.parametrize(
    "content", [b"", b"\x08", b"\x08\x08", b"{", b'{"a": 1}', b"PK", b"PK\x05\x06" + bytes(18), b"<html>", bytes(600)]
)
def test_of_anything_else_nothing_is_said(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert other_runtime(spec_of(path)) == ""
    assert other_runtime(spec_of(tmp_path / "gone")) == ""
    assert other_runtime(spec_of(None)) == ""
