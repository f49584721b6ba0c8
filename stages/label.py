"""Stage label: MTCNN's box and landmarks for every frame, in WebDataset shards."""

from pipeline.common.workers import Folders, import_for_workers, map_in_processes

if __name__ == "__main__":
    # Beside the imports that follow.
    import_for_workers("pipeline.common.params", "pipeline.store.shards", "pipeline.video.faces")

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from operator import attrgetter
from pathlib import Path
from shutil import copyfile
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field

from pipeline.common.clips import Clip, Refusal, group_words, read_manifest, write_stored
from pipeline.common.files import write_json
from pipeline.common.frames import Crop, FaceSettings, FaceTrack
from pipeline.common.params import Section, StageParams, load_params
from pipeline.common.refusals import check_share, described
from pipeline.store.contents import CLIPS, FRAMES
from pipeline.store.shards import LabelledClip, write_shards
from pipeline.store.strips import decode_strip, strip_size
from pipeline.video.faces import FaceDetector
from pipeline.video.no_face import why_no_face
from pipeline.video.tracks import main_face

# What of a video is in its frames, in words.
_SEEN: dict[Crop, str] = {
    "face": "cut to its face",
    "square": "cut to its centre (frames.crop: face looks in the whole picture)",
    "none": "stretched to a square",
}


class QualitySettings(Section):
    """When the data set as a whole cannot be used.

    Attributes:
        max_refused: Largest share of the clips that may be refused; two always may, unless it is 0.
    """

    max_refused: Annotated[float, Field(ge=0, le=1)]


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    faces: FaceSettings
    quality: QualitySettings


class Labels(NamedTuple):
    """A clip's main face, and the number of faces found in each frame."""

    track: FaceTrack
    num_faces: list[int]


def main(params: Params, frames: Path, out: Path, quality: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    clips = read_manifest(frames / "clips.parquet")
    usable = sorted((clip for clip in clips if not clip.reason), key=attrgetter("subject", "clip"))
    tally = Tally(clips, json.loads((frames / FRAMES).read_bytes())["frames"]["crop"])
    faces = params.faces
    results = map_in_processes(
        partial(label_clip, folder=frames, max_jump=faces.max_jump, max_gap=faces.max_gap),
        usable,
        "labelling",
        initializer=_start_worker,
        initargs=(faces.min_face_size,),
        folders=Folders(read=[frames], written=[out]),
    )
    strips = (read_strip(frames, clip.clip) for clip in usable)
    labelled = tally.count(zip(usable, strips, results, strict=True), faces)
    with closing(results):  # When writing fails, the processes do not go on to the last clip.
        stored = write_shards(out, labelled)
    write_stored(out / CLIPS, stored)
    copyfile(frames / FRAMES, out / FRAMES)
    report = tally.report()
    write_json(quality, report)
    print(
        f"label: {report['used']} clips of {len({clip.group for clip in stored})} "
        f"{group_words(stored)}, a face in {report['detection_rate']:.1%} of their frames; "
        f"{report['refused']} of "
        f"{report['clips']} clips refused"
    )
    for line in described(_in_words(refused) for refused in report["refused_clips"]):
        print(f"  {line}")
    try:
        check_share(
            report["refused"],
            report["clips"],
            params.quality.max_refused,
            things="clips",
            name="quality.max_refused",
            report=quality,
        )
    except ValueError as error:
        raise SystemExit(f"label: {error}") from error


def _in_words(refused: Mapping[str, Any]) -> tuple[str, str]:
    where = f"row {refused['row']}" if refused["row"] else refused["clip"]
    return refused["reason"], f"{where}: {refused['message']}"


class Tally:
    """Counts what happens to the clips on their way through the stage."""

    def __init__(self, clips: list[Clip], crop: Crop) -> None:
        self.clips = clips
        self.crop = crop
        self.refused = {clip.clip: clip for clip in clips if clip.reason}
        self.detected: list[float] = []
        self.num_faces: Counter[int] = Counter()

    def count(
        self, labelled: Iterator[tuple[Clip, bytes, Labels]], faces: FaceSettings
    ) -> Iterator[LabelledClip]:
        """Pass on the clips that show a face, and refuse the others."""
        for clip, strip, labels in labelled:
            if faces.enough(labels.track):
                self.detected.append(float(labels.track.mask.mean()))
                self.num_faces.update(labels.num_faces)
                yield clip, strip, labels.track
            else:
                frames = decode_strip(strip, strip_size(strip))
                why = why_no_face(frames, clip.shots.tolist(), labels.track, 1, faces)
                message = f"{clip.path}, {_SEEN[self.crop]}: {why}"
                self.refused[clip.clip] = clip.refuse(Refusal("no_face", message))

    def report(self) -> dict[str, Any]:
        """The content of metrics/data_quality.json; rates are over frames of the used clips."""
        num_frames = max(self.num_faces.total(), 1)
        refused = [self.refused[clip.clip] for clip in self.clips if clip.clip in self.refused]
        return {
            "clips": len(self.clips),
            "used": len(self.clips) - len(refused),
            "refused": len(refused),
            "refused_by_reason": dict(sorted(Counter(clip.reason for clip in refused).items())),
            "detection_rate": round(sum(self.detected) / max(len(self.detected), 1), 4),
            "partly_detected_clips": sum(rate < 1 for rate in self.detected),
            "faces_per_frame": {
                "none": round(self.num_faces[0] / num_frames, 4),
                "one": round(self.num_faces[1] / num_frames, 4),
                "several": round(
                    sum(n for k, n in self.num_faces.items() if k > 1) / num_frames, 4
                ),
            },
            "damaged_clips": [
                {"clip": clip.clip, "path": clip.path, "row": clip.row, "holes": clip.holes}
                for clip in self.clips
                if clip.holes
            ],
            "clips_with_cuts": [
                {"clip": clip.clip, "path": clip.path, "row": clip.row, "shots": num_shots}
                for clip in self.clips
                if (num_shots := len(set(clip.shots.tolist()))) > 1
            ],
            "chosen_streams": [
                {"clip": clip.clip, "path": clip.path, "row": clip.row, "stream": clip.stream}
                for clip in self.clips
                if clip.stream
            ],
            "refused_clips": [
                {"clip": clip.clip, "path": clip.path, "row": clip.row, "reason": clip.reason}
                | {"message": clip.message}
                for clip in refused
            ],
        }


_detector: FaceDetector


def _start_worker(min_face_size: int) -> None:
    global _detector
    torch.set_num_threads(1)
    _detector = FaceDetector(min_face_size)


def read_strip(folder: Path, clip: str) -> bytes:
    return (folder / f"{clip}.jpg").read_bytes()


def label_clip(clip: Clip, folder: Path, max_jump: float, max_gap: int) -> Labels:
    """Find the main face of a clip in `<folder>/<clip>.jpg`; runs in a worker process."""
    strip = read_strip(folder, clip.clip)
    found = _detector.detect(decode_strip(strip, strip_size(strip)))
    track = main_face(found, clip.shots.tolist(), max_jump=max_jump, max_gap=max_gap)
    return Labels(track, [len(frame.boxes) for frame in found])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", type=Path, help="folder of the sampled frames")
    parser.add_argument("out", type=Path, help="what is written")
    parser.add_argument("quality", type=Path, help="gets what was refused, and why")
    args = parser.parse_args()
    main(load_params(Params), args.frames, args.out, args.quality)
