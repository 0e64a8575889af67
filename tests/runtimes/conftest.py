"""Keeps what a model's module leaves in sys.modules out of the next test."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def clean_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__spec__", None) is None:  # not imported the usual way
            del sys.modules[name]
