"""Where the index of a package repository is looked for."""

from __future__ import annotations

import os

import pytest
from ansible_collections.beta9.workers.plugins.modules import host_repository

MACHINE = os.uname().machine
DEB = {"x86_64": "amd64", "aarch64": "arm64"}.get(MACHINE, MACHINE)


@pytest.mark.parametrize(
    "params, expected",
    [
        (
            {"manager": "dnf", "url": "https://a.example/rhel/9/$basearch"},
            f"https://a.example/rhel/9/{MACHINE}/repodata/repomd.xml",
        ),
        (
            {"manager": "apt", "url": "https://a.example/deb/$(ARCH)", "suite": "/"},
            f"https://a.example/deb/{DEB}/InRelease",
        ),
        (
            {"manager": "apt", "url": "https://a.example/debian", "suite": "bookworm"},
            "https://a.example/debian/dists/bookworm/InRelease",
        ),
    ],
)
def test_variables_of_the_package_manager_are_filled_in(params, expected):
    assert host_repository.index_urls(params) == [expected]
