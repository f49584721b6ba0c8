"""Stage weights: what the encoder starts from, by the name or the file in weights/.

Pre-training, too, has this stage, with parameters of its own.
"""

import argparse
from pathlib import Path

from pipeline.acquire.http import DownloadFailed
from pipeline.acquire.weights import provide
from pipeline.common.files import project_root
from pipeline.common.hosts import RetryPolicy
from pipeline.common.params import Section, StageParams, load_params


class EncoderSource(Section):
    """Which weights; docs/checkpoints.md.

    Attributes:
        weights: A name of `python -m commands.weights`, or that of a file in weights/.
        accept_licence: Whether the user accepts their licence.
        hugging_face: Address of the hub, or of a mirror.
        allow_seen: Whether subjects may be tested whom the weights have seen; every table then says
            so. Pre-training tests nobody.
    """

    weights: str
    accept_licence: bool
    hugging_face: str
    allow_seen: bool = False


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    encoder: EncoderSource


def main(params: Params, source: Path, out: Path, policy: RetryPolicy) -> None:
    try:
        line = provide(
            source,
            out,
            project_root(Path()) / "downloads/weights",
            accept_licence=params.encoder.accept_licence,
            policy=policy,
            hugging_face=params.encoder.hugging_face,
            allow_seen=params.encoder.allow_seen,
        )
    except (DownloadFailed, PermissionError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f"weights: {error}") from error
    print(f"weights: {line}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="where it comes from")
    parser.add_argument("out", type=Path, help="what is written")
    parser.add_argument(
        "--params", type=Path, default=Path("params.yaml"), help="the parameters (%(default)s)"
    )
    args = parser.parse_args()
    main(load_params(Params, args.params), args.source, args.out, RetryPolicy())
