"""Directories of ours that nothing is left in."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles


def test_empty_directories_go_and_others_stay(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    secretfiles.remove_empty(str(tmp_path / "a/b/c"), 2)
    assert (tmp_path / "a").is_dir() and not (tmp_path / "a/b").exists()
    (tmp_path / "a/b").mkdir()
    (tmp_path / "a/kept").write_text("")
    secretfiles.remove_empty(str(tmp_path / "a/b"), 2)
    secretfiles.remove_empty(str(tmp_path / "absent"), 2)
    assert (tmp_path / "a/kept").exists() and not (tmp_path / "a/b").exists()
