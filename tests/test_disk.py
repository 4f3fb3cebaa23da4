"""Files are there whole or not at all, whoever writes them, and whatever becomes of the disk."""

import os

import pytest

from harness.disk import held, read_json, takes_files, whole, write_whole


def test_two_may_write_one_file_and_it_is_of_one_of_them(tmp_path):
    place = tmp_path / "file"
    with whole(place) as first, whole(place, durable=True) as second:
        first.write(b"first")
        second.write(b"second")
        assert not place.exists()
    assert place.read_bytes() == b"first" and [*tmp_path.iterdir()] == [place]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("mine"), OSError("a sentence")])
def test_what_was_there_stays_where_writing_ends(tmp_path, error):
    place = tmp_path / "file"
    write_whole(place, "before")
    with pytest.raises(error if isinstance(error, type) else type(error)), whole(place) as file:
        file.write(b"half")
        raise error
    assert place.read_text() == "before" and [*tmp_path.iterdir()] == [place]


def test_a_full_disk_names_the_file_and_another_files_error_its_own(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*/mine'"),
        whole(tmp_path / "mine"),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError, match="theirs"), whole(tmp_path / "mine"):
        (tmp_path / "theirs").read_text()
    with pytest.raises(FileNotFoundError, match="nowhere/mine"):
        write_whole(tmp_path / "nowhere/mine", "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    """As /dev/null is, for whoever may write there."""
    place = tmp_path / "pipe"
    os.mkfifo(place)
    with pytest.raises(ValueError, match="pipe is no file that can be replaced"):
        takes_files(place)
    with pytest.raises(OSError, match="it is no file"):
        write_whole(place, "text")
    assert place.is_fifo() and [*tmp_path.iterdir()] == [place]


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with held(tmp_path / "new") as first, held(tmp_path / "new") as second:
        assert (first, second) == (True, False)
    with held(tmp_path / "new", wait=True) as alone:
        assert alone and [*(tmp_path / "new").iterdir()] == []


def test_where_no_file_can_be_written_is_said_before(tmp_path):
    takes_files(tmp_path / "file")
    assert [*tmp_path.iterdir()] == []
    for place, why in ((tmp_path, "is a folder"), (tmp_path / "no/file", "There is no folder")):
        with pytest.raises(ValueError, match=why):
            takes_files(place)


@pytest.mark.parametrize("text", [b"{", b"[" * 100_000, b"\xff\xfe{", b""])
def test_a_file_that_is_no_json_is_named(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"a\.json is no JSON: "):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"é": 1}', "utf-8-sig")
    assert read_json(tmp_path / "a.json") == {"é": 1}
