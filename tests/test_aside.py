"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bothways.aside import replacing
from bothways.errors import BothwaysError


@pytest.mark.parametrize("older", [False, True])
def test_a_file_and_a_folder_take_their_places(older: bool, tmp_path: Path) -> None:
    file, folder = tmp_path / "deep/file", tmp_path / "deep/folder"
    if older:
        folder.mkdir(parents=True)
        (folder / "stale").touch()
        file.write_text("old")
    with replacing(file) as aside:
        aside.write_text("new")
        assert not file.exists() or file.read_text() == "old"
    with replacing(folder) as aside:
        aside.mkdir()
        (aside / "fresh").touch()
    assert file.read_text() == "new"
    assert [path.name for path in folder.iterdir()] == ["fresh"]
    assert sorted(path.name for path in file.parent.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("a bug")])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_goes_wrong_leaves_what_stood_there(error: Exception, kind: str, tmp_path: Path) -> None:
    place = tmp_path / kind
    if kind == "file":
        place.write_text("old")
    else:
        place.mkdir()

    def write() -> None:
        with replacing(place) as aside:
            aside.mkdir() if kind == "folder" else aside.write_text("half")
            raise error

    # the disk's refusal is a sentence, a mistake of ours stays what it is
    wanted = BothwaysError if isinstance(error, OSError) else ValueError
    with pytest.raises(wanted, match=f"{kind} could not be written: No space" if wanted is BothwaysError else "a bug"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == [kind]
    assert place.is_dir() or place.read_text() == "old"


def test_a_part_written_aside_in_turn_is_named_as_the_whole(tmp_path: Path) -> None:
    with pytest.raises(BothwaysError, match=r"place/part could not be written: No space") as caught:
        with replacing(tmp_path / "place") as aside, replacing(aside / "part"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert ".part" not in str(caught.value) and caught.value.exit_code == 1 and not list(tmp_path.iterdir())
