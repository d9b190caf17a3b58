"""A fresh working directory for every test, so that what hostile input leaves behind is seen."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from tests.tiny import save_tiny
from tests.train.conftest import RENAMED


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in RENAMED:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A directory with a tiny model and its tokenizer."""
    return str(save_tiny(tmp_path_factory.mktemp("policy")))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@pytest.fixture
def ordinary_user():
    """Makes file permissions count: in a container tests run as root, to whom they say nothing."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(0x20080522, 0), (_Sets * 2)()

    def call(function):
        if function(ctypes.byref(header), ctypes.byref(sets)) != 0:
            pytest.skip(f"capabilities cannot be changed here: {errno.errorcode[ctypes.get_errno()]}")

    call(libc.capget)
    before = sets[0].effective
    sets[0].effective = before & ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    call(libc.capset)
    try:
        yield
    finally:
        sets[0].effective = before
        call(libc.capset)
