"""An item's frames, sampled evenly, of the folder `<item>/0001.jpg ...`, of the video `<item>.mp4`, of an animation.

Of n frames as of the seconds of a video: cut into N equal stretches, what stands in the middle of each is taken.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rawrec.data import images
from rawrec.data.checked import Checked
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.media import videos
from rawrec.sources.media.names import natural, suffix_of
from rawrec.sources.media.pictures import SUFFIXES, Found, ImageFolder, Skip, check

DEFAULT_NAME = "{item}.jpg"
MAX_FRAMES = 1000
"""Frames of an item that can be asked for."""
MAX_LISTED = 1_000_000
"""A folder of more files is not read."""


def media_folder(folder: str | Path | None, name: str, frames: int | None, report: ImportReport) -> ImageFolder | None:
    """The folder of an import's pictures; with `frames` that of so many frames of each item. UserError for settings
    that do not fit."""
    if folder is None:
        if frames is not None:
            raise UserError(f"frames={frames} is of a folder of videos or frames: name the folder (image_dir)")
        return None
    if frames is None:
        return ImageFolder(Path(folder), name, report)
    if not 1 <= frames <= MAX_FRAMES:
        raise UserError(f"frames={frames}: give how many frames of an item are taken, 1 to {MAX_FRAMES:,}")
    return FrameFolder(Path(folder), name, report, frames)


def evenly(there: int, count: int) -> list[int]:
    """Which of `there` frames stand in the middle of `count` equal stretches, ascending, each once."""
    return sorted({(2 * k + 1) * there // (2 * count) for k in range(count)})


class FrameFolder(ImageFolder):
    """A folder with the frames of items, at most `count` of each.

    What a name made from the id stands for: a folder of pictures, in the order of their names, numbers by their value;
    a video, by its suffix; an animation, or a still picture, which is stored as it is. A name without such a suffix is
    that of the folder, else of the first file with one of the known suffixes. Safe as `ImageFolder` is.
    """

    at_once = 1

    def __init__(self, folder: Path, name: str, report: ImportReport, count: int) -> None:
        super().__init__(folder, "{item}" if name == DEFAULT_NAME else name, report)
        self.count = count
        if self.name.is_glob:
            raise UserError(f"image name {name!r}: with frames it names one folder or file of an item, without * and ?")
        if self.name.suffix in videos.SUFFIXES:
            videos.loaded()

    def _found(self, item_id: str, checked: Checked) -> Found:
        name = self.name.of(item_id)
        names = [name]
        if self.name.suffix not in (*videos.SUFFIXES, *SUFFIXES):
            names += [f"{name}.{suffix}" for suffix in (*videos.SUFFIXES, *SUFFIXES)]
        for named in names:
            place = self._tried(lambda named=named: self._locate(named))
            if isinstance(place, Skip):
                return Found([named], pictures=[(named, place)])
            if place is None:
                continue
            path, state = place
            if stat.S_ISDIR(state.st_mode):
                return self._of_folder(named, path, checked)
            if suffix_of(named) in videos.SUFFIXES:
                return self._of_video(named, path, state)
            return self._of_picture(named, checked)
        return Found()

    def _of_folder(self, name: str, path: str, checked: Checked) -> Found:
        listed = self._tried(lambda: _listed(path))
        found = Found(folders=[name])
        if not isinstance(listed, list):
            found.pictures = [(name, listed)] if listed is not None else []
            return found
        files = sorted((file for file in listed if suffix_of(file) in SUFFIXES), key=natural)
        if len(files) < len(listed):
            other = next(file for file in listed if suffix_of(file) not in SUFFIXES)
            found.beside.append(("file among an item's frames that is no picture", f"{name}/{other}",
                                 len(listed) - len(files)))  # fmt: skip
        if not files:
            found.pictures = [(name, Skip("folder of frames without a picture"))]
            return found
        chosen = evenly(len(files), self.count)
        found.beside += _left_out(name, len(files) - len(chosen))
        for at in chosen:
            frame = f"{name}/{files[at]}"
            picture = self._tried(lambda frame=frame: self._checked(frame, checked))
            if picture is not None:
                found.pictures.append((frame, picture))
        return found

    def _of_picture(self, name: str, checked: Checked) -> Found:
        found, picture = Found([name]), self._tried(lambda: self._checked(name, checked))
        if picture is None:
            return Found()
        found.pictures = [(name, picture)]
        if isinstance(picture, bytes):
            try:
                there, taken = images.frames(picture, lambda n: evenly(n, self.count))
            except images.ImageError as error:
                reason, _, detail = str(error).partition(": ")
                found.pictures = [(name, Skip(reason, detail))]
            else:
                if there > 1:
                    found.pictures = [(name, frame) for frame in taken]
                    found.beside += _left_out(name, there - len(taken))
        return found

    def _of_video(self, name: str, path: str, state: os.stat_result) -> Found:
        def read() -> tuple[list[bytes], bool]:
            with self._opened(path, state) as file:
                if not state.st_size:
                    raise Skip("empty file")
                return videos.sample(file, self.count)

        sampled = self._tried(read)
        if sampled is None:
            return Found()
        if isinstance(sampled, Skip):
            return Found([name], pictures=[(name, sampled)])
        frames, lies = sampled
        reason = "image: video of another length than its header says (what is there was sampled)"
        return Found([name], pictures=[(name, frame) for frame in frames], beside=[(reason, name, 1)] if lies else [])

    def _checked(self, name: str, checked: Checked) -> bytes:
        data = self._read(name)
        check(data, checked)
        return data


def _left_out(name: str, count: int) -> list[tuple[str, str, int]]:
    return [("image: frame between those that were sampled", name, count)] if count else []


def _listed(path: str) -> list[str]:
    """The plain names in a folder, without those that begin with a dot."""
    names = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                names.append(entry.name)
            if len(names) > MAX_LISTED:
                raise Skip(f"folder of frames with more than {MAX_LISTED:,} files")
    return sorted(names)
