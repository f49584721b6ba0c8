from pathlib import Path

from browser import browser_page
from clones import new_clone

# Of the three pipelines.
NUM_PLOTS = 9


def test_the_plots_of_the_committed_run_are_drawn_without_internet(tmp_path: Path) -> None:
    run = new_clone(tmp_path)
    said = run("python", "-m", "commands.plots")
    page_file = tmp_path / "dvc_plots/index.html"
    assert page_file.as_uri() in said
    with browser_page() as page:
        page.goto(page_file.as_uri())
        page.wait_for_selector(".vega-embed svg.marks")
        assert page.locator(".vega-embed svg.marks").count() == NUM_PLOTS
        for words in ("Confusion over all folds", "fold 5", "fold 3, seed 1", "held-out samples"):
            assert page.get_by_text(words).count(), words
