"""DVC's plots as a page that needs no internet.

    python -m commands.plots                          confusion, recalls, learning curves
    python -m commands.plots main a-name-of-mine      of commits and experiments, side by side

`dvc plots show` and `dvc plots diff` write the same page; theirs loads what draws it from the
internet.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import vl_convert

# The last version of the kind that DVC's templates are written for.
_VEGA_LITE = "5.21"
# What DVC's pages call.
_CODE = "window.vegaEmbed = vegaEmbed;"
_PAGE = """<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<title>Plots</title>
<script>{code}</script>
</head>
<body>
{{plot_divs}}
</body>
</html>
"""


def offline_page() -> str:
    """A template for `dvc plots --html-template` with Vega in it."""
    return _PAGE.format(code=vl_convert.javascript_bundle(_CODE, vl_version=_VEGA_LITE))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revisions", nargs="*", help="commits or experiments (this run)")
    args = parser.parse_args(argv)
    action = ["diff", *args.revisions] if args.revisions else ["show"]
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder, "page.html")
        template.write_text(offline_page(), encoding="utf-8")
        command = ["dvc", "plots", *action, "--html-template", str(template)]
        raise SystemExit(subprocess.call(command))


if __name__ == "__main__":
    main()
