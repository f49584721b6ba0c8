"""From a video to the frames of a clip, with the face looked for before anything is cut away.

A video is a file, or a folder with its frames as pictures.

Shape letters: T frames, S side of a frame in pixels.
"""

from pathlib import Path

import numpy as np

from pipeline.common.frames import OTHER_SHOT, FaceSettings, FaceTrack, FrameSettings
from pipeline.video.container import UnusableVideo
from pipeline.video.crops import cut, face_squares, shrink
from pipeline.video.decode import SampledVideo, read_pictures
from pipeline.video.faces import FaceDetector
from pipeline.video.mtcnn import LONGER_SIDE
from pipeline.video.no_face import why_no_face
from pipeline.video.picture_folder import read_folder
from pipeline.video.tracks import main_face


class FrameReader:
    """Reads videos for `sample` and for trained models alike.

    Args:
        frames: Which frames, how large, and what is cut away.
        faces: How faces are found and followed.
    """

    def __init__(self, frames: FrameSettings, faces: FaceSettings) -> None:
        self.frames = frames
        self.faces = faces
        self.detector = FaceDetector(faces.min_face_size)

    def read(self, path: Path) -> SampledVideo:
        """Sampled frames (T, S, S, 3) of a video.

        With crop `face` they are squares around the main face, which is looked for in small copies
        of the pictures and cut out of the pictures themselves. Frames of other shots than that of
        this face show the same place, and are marked with `OTHER_SHOT`.

        Raises:
            UnusableVideo: See `read_pictures`, `read_folder`; or no face is in enough frames.
        """
        read = read_folder if path.is_dir() else read_pictures
        video = read(path, self.frames)
        if self.frames.crop != "face":
            return video
        pictures = video.pictures
        copies, scale = shrink(pictures, LONGER_SIDE)
        found = self.detector.detect(copies)
        jump, gap = self.faces.max_jump, self.faces.max_gap
        track = main_face(found, video.shots.tolist(), max_jump=jump, max_gap=gap)
        if not self.faces.enough(track):
            why = why_no_face(pictures, video.shots.tolist(), track, scale, self.faces)
            raise UnusableVideo("no_face", f"{path.name}: {why}")
        large = FaceTrack(track.boxes / scale, track.points / scale, track.mask)
        squares = face_squares(large, margin=self.frames.margin, level=self.frames.level)
        shown = video.shots[np.argmax(track.mask)]
        return video._replace(
            pictures=cut(pictures, squares, self.frames.size),
            shots=np.where(video.shots == shown, shown, OTHER_SHOT),
        )
