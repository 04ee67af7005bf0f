from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from gfb_brevitas.files import refuse_duplicate_keys, replacing, write_text_atomically
from gfb_brevitas.search.json_lines import JsonLinesFile

ROOT = Path(__file__).parents[2]


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


# --- after a power failure ---------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was written to the disk, in order: paths of files and folders, with what was renamed between."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        done.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    def noted_replace(source: Path, target: Path) -> None:
        replace(source, target)
        done.append(f"{source} -> {target}")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    return done


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads the names of open files from /proc")
def test_the_data_then_the_name_reach_the_disk(tmp_path: Path, synced: list[str]) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    write_text_atomically(path, "new")
    made, (data, renamed, named) = synced[:2], synced[2:]
    assert made == [str(tmp_path), str(tmp_path / "a")]
    assert renamed == f"{data} -> {path}" and named == str(path.parent)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads the names of open files from /proc")
def test_the_name_of_a_new_log_reaches_the_disk(tmp_path: Path, synced: list[str]) -> None:
    log = JsonLinesFile(tmp_path / "history.jsonl")
    log.append({"epoch": 1})
    assert synced == [str(log.path), str(tmp_path)]
    log.append({"epoch": 2})
    assert synced[2:] == [str(log.path)]


def test_nothing_is_renamed_another_way() -> None:
    packages = [ROOT / "gfb_brevitas", ROOT / "integrations" / "gfb_integrations"]
    sources = [file for package in packages for file in package.rglob("*.py")]
    renaming = re.compile(r"os\.(replace|rename)\(|\.rename\(|shutil\.move|\.replace\(self\.|\.replace\(path")
    found = {
        file.relative_to(ROOT).as_posix() for file in sources if renaming.search(file.read_text("utf-8"))
    }
    # The other is a cache of compiled code, which is made again when it is gone.
    assert found <= {"gfb_brevitas/files.py", "gfb_brevitas/prepared/native_code.py"}
