"""Which frames of a video are kept."""

from bisect import bisect_right

from pipeline.common.frames import FrameSettings, Sampling
from pipeline.video.streams import Timeline


def kept_indices(timeline: Timeline, settings: FrameSettings) -> list[int]:
    """Indices of the frames of a video that the settings keep."""
    if settings.clock == "time":
        return frames_on_screen(timeline, settings.num_stored)
    return sample_indices(len(timeline.points), settings.num_stored, settings.sampling)


def sample_indices(
    num_frames: int, num_samples: int = 16, sampling: Sampling = "uniform"
) -> list[int]:
    """Indices of the frames to keep, in temporal order; a short video repeats frames.

    `uniform` takes the centre of each of `num_samples` equal segments: 32 frames -> [1, 3, 5, ...,
    31]. `stride` steps by num_frames // num_samples from frame 0 and drops the tail: 47 frames ->
    [0, 2, 4, ..., 30].

    Raises:
        ValueError: The video has no frames.

    Source: MTCAE-DFER, section IV.B ("average down sampling"); `stride` is the authors' notebook.
    """
    if num_frames < 1:
        raise ValueError("a video without frames cannot be sampled")
    if sampling == "stride" and num_frames >= num_samples:
        step = num_frames // num_samples
        return [i * step for i in range(num_samples)]
    return [(2 * i + 1) * num_frames // (2 * num_samples) for i in range(num_samples)]


def frames_on_screen(timeline: Timeline, num_samples: int) -> list[int]:
    """Indices of the frames that are shown at the centres of `num_samples` equal intervals of time.

    Where all frames are shown equally long these are the indices of `sample_indices`.
    """
    first, points = timeline.points[0], timeline.points
    length = timeline.end - first
    # A point in time t, in units of 1 / (2 num_samples) ticks, so that nothing is rounded.
    centres = [(2 * i + 1) * length for i in range(num_samples)]
    return [
        bisect_right(points, centre, key=lambda t: 2 * num_samples * (t - first)) - 1
        for centre in centres
    ]
