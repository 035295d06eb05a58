"""Frames of video files, sampled evenly in time, by PyAV (FFmpeg). A file comes from strangers: what it says of its
length is not believed, it can lead to no other file, and its size is limited before anything is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, BinaryIO

from rawrec.data import images
from rawrec.extras import need
from rawrec.sources.media.pictures import Skip

SUFFIXES = ("mp4", "m4v", "mov", "webm", "mkv", "avi")
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
"""FFmpeg's names of what is read; lists of other files (HLS, concat) are not."""
FAR = 1 << 62
"""A tick after every video's end."""
MAX_DECODED = 50_000
"""Frames decoded of one video; between keyframes that are rare many more must be than are wanted."""
HELD = 3
"""A decoder holds so many times the pixels that one of a picture does: the frames that others are made from."""


def loaded() -> Any:
    """PyAV. Raises UserError where it is not installed."""
    return need("av", "frames of videos are decoded by PyAV", " (or give folders of frames, GIF or WebP)")


def sample(file: BinaryIO, count: int) -> tuple[list[bytes], bool]:
    """The frames shown in the middle of each of `count` equal stretches of a video, as JPEG, upright; each once, so
    that a video of fewer frames gives all that it has.

    Also whether it has another length than its header says; it is what is there that is sampled. Decodes from the
    keyframe before each, or in order where keyframes are rarer than what is wanted. Raises Skip with a reason.
    """
    av = loaded()
    options = {"format_whitelist": FORMATS, "max_pixels": str(images.MAX_PIXELS)}
    try:
        with av.open(file, options=options, metadata_errors="ignore") as container:
            return _sampled(container, count)
    except Skip:
        raise
    except Exception as error:  # as of pictures: hostile bytes raise nearly everything
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Skip("damaged video, or of a format that is not read", detail[:200]) from None


def _sampled(container: Any, count: int) -> tuple[list[bytes], bool]:
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise Skip("video without a picture")
    context = stream.codec_context
    _check_size(context.width, context.height)
    context.thread_count = 1  # videos are decoded side by side, and each thread would hold frames
    first, end = _extent(container, stream)
    stretch = Fraction(end - first, count)
    targets = [first + int(stretch * k + stretch / 2) for k in range(count)]
    found = []
    with images.room(HELD * context.width * context.height):
        for frame in _shown(container, stream, first, targets):
            _check_size(frame.width, frame.height)
            found.append(images.jpeg(_upright(frame)))
    if not found:
        raise Skip("video without a picture")
    return found, _lies(container, stream, float((end - first) * stream.time_base))


def _check_size(width: int, height: int) -> None:
    if width * height > images.MAX_PIXELS:
        limit = f"more than the limit of {images.MAX_PIXELS // 1_000_000} million pixels"
        raise Skip("too large", f"video of {width} x {height} pixels, {limit}")


def _upright(frame: Any) -> Any:
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _extent(container: Any, stream: Any) -> tuple[int, int]:
    """The ticks at which the video begins and ends, from its packets after the last keyframe, or from all of them."""
    errors = loaded().error.FFmpegError
    first = stream.start_time if stream.start_time is not None else 0
    usual = int(1 / (stream.average_rate * stream.time_base)) if stream.average_rate and stream.time_base else 1
    for to in (FAR, first):
        try:
            container.seek(to, stream=stream, backward=True)
            times = [(p.pts, p.duration or usual) for p in container.demux(stream) if p.pts is not None]
        except errors:  # a file that ends too soon, or that cannot be sought in
            times = []
        if times:
            return first, max(first + 1, max(pts + duration for pts, duration in times))
    raise Skip("video without a picture")


def _lies(container: Any, stream: Any, seconds: float) -> bool:
    """Whether the header says another length, by more than a second and a tenth."""
    said = None
    if stream.duration:
        said = float(stream.duration * stream.time_base)
    elif container.duration:
        said = container.duration / 1_000_000
    return said is not None and abs(said - seconds) > max(1.0, 0.1 * seconds)


def _shown(container: Any, stream: Any, first: int, targets: Sequence[int]) -> Iterator[Any]:
    """The frame that is shown at each of ascending ticks, each frame once. first: the tick of the first frame."""
    held = following = last = None
    jumping, left = True, [MAX_DECODED]
    frames: Iterator[Any] = iter(())
    for target in targets:
        if jumping and (held is None or (following is not None and following.pts <= target)):
            reached = following
            container.seek(target, stream=stream, backward=True)
            frames = _decoded(container, stream, left)
            held, following = None, next(frames, None)
            if following is None or following.pts > target:  # not where it should have led to
                container.seek(first, stream=stream, backward=True)
                frames = _decoded(container, stream, left)
                following, jumping = next(frames, None), False
            elif reached is not None and following.pts <= reached.pts:  # keyframes are rare: from here on in order
                jumping = False
        while following is not None and (held is None or following.pts <= target):
            held, following = following, next(frames, None)
        if held is not None and held is not last:
            last = held
            yield held


def _decoded(container: Any, stream: Any, left: list[int]) -> Iterator[Any]:
    """Frames in order, each with a tick, until the video ends."""
    tick = None
    for frame in container.decode(stream):
        if left[0] <= 0:
            raise Skip(f"video with more than {MAX_DECODED:,} frames between those wanted (its keyframes are rare)")
        left[0] -= 1
        if frame.pts is None:
            frame.pts = frame.dts if frame.dts is not None else 0 if tick is None else tick + 1
        tick = frame.pts
        yield frame
