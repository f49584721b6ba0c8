"""Rendered people for a prior and a frozen CNN: everything is known of them, and nobody is tested.

They are drawn as those of the set `rendered`, at the side that is stored, and they are the same
people where the seeds are the same.
"""

from functools import partial

from pipeline.affect.labels import LabelledImage
from pipeline.affect.rendered import draw_frame
from pipeline.affect.rendered_plan import Settings, Video, plan_videos
from pipeline.affect.s_aff_wild2 import group_of
from pipeline.affect.stored import Picture
from pipeline.common.workers import map_in_processes


def draw_people(settings: Settings, side: int) -> tuple[list[LabelledImage], list[Picture]]:
    """All frames of all videos with all labels.

    Args:
        settings: How many.
        side: Of the pictures, in pixels.
    """
    videos = plan_videos(settings)
    draw = partial(_draw_video, seed=settings.seed, side=side)
    pictures = [one for video in map_in_processes(draw, videos, "people") for one in video]
    images = [
        LabelledImage(f"{video.name}_{i + 1:05}", path, group_of(path), video.part, frame.labels)
        for video in videos
        for i, frame in enumerate(video.frames)
        for path in [f"{video.name}/{i + 1:05}.jpg"]
    ]
    return images, pictures


def _draw_video(video: Video, seed: int, side: int) -> list[Picture]:
    return [draw_frame(video, i, seed, side) for i in range(len(video.frames))]
