from __future__ import annotations

import json
import os

import pytest

from gfb_brevitas.files import refuse_duplicate_keys, replacing, write_text_atomically


def test_text_is_written_and_folders_are_made(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    write_text_atomically(path, "β = 0.9\n")
    assert path.read_text(encoding="utf-8") == "β = 0.9\n"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "file.txt"
    write_text_atomically(path, "old")

    def fail_halfway():
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_readers_see_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "file.txt"
    write_text_atomically(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"


def test_written_files_are_readable_by_others(tmp_path):
    write_text_atomically(tmp_path / "file.txt", "x")
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o644


def test_repeated_keys_are_refused_at_any_depth():
    assert json.loads('{"a": {"b": 1}}', object_pairs_hook=refuse_duplicate_keys) == {"a": {"b": 1}}
    with pytest.raises(ValueError, match="repeated key 'b'"):
        json.loads('{"a": {"b": 1, "b": 2}}', object_pairs_hook=refuse_duplicate_keys)
