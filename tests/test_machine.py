"""What a machine lets this process have."""

import hashlib
import subprocess
from weakref import finalize

import psutil
import pytest

from harness import machine, weights

GB = 10**9


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups as a kernel shows them: `group` with these files, and a process inside."""
    real = machine._lines

    def make(said, **files):
        for name, text in files.items():
            group, _, file = name.rpartition("__")
            place = tmp_path / group.replace("__", "/") / file.replace("_", ".", 1)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(str(text))
        monkeypatch.setattr(machine, "CONTROL", tmp_path)
        monkeypatch.setattr(machine, "_lines", lambda f: [said] if f.name == "cgroup" else real(f))

    return make


def test_a_job_has_what_its_group_allows_and_no_more(groups):
    stat = f"anon 5\nactive_file {GB // 8}\ninactive_file {GB // 8}"
    groups(
        "0::/slurm/job",
        slurm__memory_max=2 * GB, slurm__memory_current=GB, slurm__memory_stat="",
        slurm__job__memory_max=GB, slurm__job__memory_current=GB // 2, slurm__job__memory_stat=stat,
    )  # fmt: skip
    assert machine.whole_memory("cpu") == GB
    assert machine.free_memory("cpu") == GB - GB // 4


def test_in_the_first_version_of_groups_too(groups):
    groups(
        "4:cpu,memory:/docker",
        memory__docker__memory_limit_in_bytes=GB, memory__docker__memory_usage_in_bytes=2 * GB,
        memory__docker__memory_stat="total_inactive_file 0",
    )  # fmt: skip
    assert (machine.whole_memory("cpu"), machine.free_memory("cpu")) == (GB, 0)


def test_where_nothing_is_limited_all_of_the_machine_is(groups):
    groups("0::/", memory_max="max", memory_current=5)
    assert machine.whole_memory("cpu") == psutil.virtual_memory().total


def test_a_cache_needs_no_home_where_it_is_said(monkeypatch):
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", "/somewhere")
    monkeypatch.setattr("pathlib.Path.home", lambda: 1 / 0)
    assert str(machine.cache_folder()) == "/somewhere"


def test_a_hash_that_was_not_kept_whole_is_made_again(tmp_path, monkeypatch):
    """Of a disk that was full once an empty note stays."""
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    said = weights.of(str(file))
    (note,) = (tmp_path / "cache/digests").iterdir()
    assert said == hashlib.sha256(b"weights").hexdigest() == note.read_text()
    for torn in (b"", said[:20].encode(), b"\xff" * 64):
        note.write_bytes(torn)
        assert weights.of(str(file)) == said == note.read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    note.unlink()
    assert weights.of(str(file)) == said and [*note.parent.iterdir()] == []


def test_a_result_says_which_commit_and_whether_it_was_changed(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    file = tmp_path / "harness" / "machine.py"
    file.parent.mkdir()
    file.write_text("1")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "m"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    monkeypatch.setattr(machine, "__file__", str(file))
    told = []
    for text in "12":
        file.write_text(text)
        machine.commit.cache_clear()
        told.append(machine.commit())
    machine.commit.cache_clear()
    assert told == [{"commit": head.strip(), "dirty": changed} for changed in (False, True)]


def test_a_model_over_several_gpus_takes_what_all_of_them_give_out(monkeypatch):
    import torch

    given, peaks, anew = [3, 5], [7, 11], []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", given.__getitem__)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.__getitem__)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", anew.append)
    machine.forget_peak("cuda")
    assert (machine.taken_memory("cuda"), machine.peak_memory("cuda"), anew) == (8, 18, [0, 1])


def test_what_only_refers_to_itself_is_let_go():
    class Model:
        def __init__(self):
            self.layer = self

    gone = []
    finalize(Model(), gone.append, True)
    with machine.no_cycles():
        assert not gone
        machine.let_go()
    assert gone
