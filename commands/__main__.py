"""Runs one of the project's commands, or says which there are.

    python -m commands                      what there is
    python -m commands predict --help       what it takes
    python -m commands predict video.mp4 --model runs/fold1 --out results

is the same as `python -m commands.predict ...`. Stages are run by `dvc repro`.
"""

import ast
import difflib
import runpy
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent


def commands() -> dict[str, str]:
    """The first line of every command's description, by its name."""
    found = {}
    for path in sorted(_FOLDER.glob("[!_]*.py")):
        text = path.read_text(encoding="utf-8")
        # The others are parts of commands.
        if "\nif __name__ == " in text and "\ndef main(" in text:
            description = ast.get_docstring(ast.parse(text)) or ""
            found[path.stem] = description.partition("\n")[0].rstrip(".")
    return found


def overview() -> str:
    """What is printed for people."""
    known = commands()
    width = max(map(len, known))
    lines = [f"  {name:{width}}  {words}" for name, words in known.items()]
    return "\n".join([str(__doc__).strip(), "", *lines])


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(overview())
        return
    name, known = sys.argv[1], commands()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise SystemExit(f"there is no command {name}{meant} `python -m commands` lists all")
    del sys.argv[1]
    runpy.run_module(f"commands.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
