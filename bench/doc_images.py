"""The pictures of docs/final-layer.md and README.md, from a finished demo.

    headscope demo && python bench/doc_images.py headscope-demo

Whoever runs the demo sees the same in its report. With `--page` the top of the report is
photographed too, which needs playwright and a Chromium (`--chromium PATH`). The numbers in the text
are to be read beside them: run by run they are printed.
"""

import argparse
from io import BytesIO
from pathlib import Path

from PIL import Image

import headscope as hs
from headscope import figures
from headscope.analysis import logit_scatter
from headscope.analysis.representation.collapse import analyse_collapse
from headscope.analysis.representation.location import analyse_contributions
from headscope.slicing.store import open_slices

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FROZEN = "tf_efficientnet_lite0-frozen-subject-seed0"
SHRINK = 0.7  # 200 dpi → 140
VIEWS = {  # name: chapter of the page, width of the window, pixels of the picture
    "report": ("", 1280, (960, 900)),
    "report-weights": ("fig3", 1280, (960, 700)),
    "report-leakage": ("checks", 1280, (960, 700)),
    "report-phone": ("", 390, (360, 700)),
}


def drawn(runs):
    """Yield the name of each picture and its figure."""
    run = next(run for run in runs if run.name == FROZEN)
    head = hs.analyse_head(run)
    title = {"title": run.setting.title, "network": run.setting.network}
    yield "weights", figures.plot_weights(head.pairs[0], **title)
    yield "before-after", figures.plot_head_before_after(head, **title)
    heads = {one.setting.title: hs.analyse_head(one) for one in runs}
    yield "rows", figures.plot_row_distributions(heads, network=run.setting.architecture)
    yield "logits", figures.plot_logits([logit_scatter(one) for one in runs])
    collapse = {
        one.setting.title: [analyse_collapse(one, subset) for subset in ("train", "test")]
        for one in runs
    }
    yield "collapse", figures.plot_collapse(collapse)
    yield "flattening", first_slice(run, **title)


def first_slice(run, **title):
    """Draw the first slice whose maps are stored, and what its positions add."""
    row = int(run.maps["slice"][0])
    predicted = int(run.logits[row].argmax())
    contribution, _, _ = analyse_contributions(run, (1 - predicted, predicted))
    store = open_slices(run.path.parents[1] / "slices")
    return figures.plot_flattening(
        store.pixels[row],
        run.maps["maps"][0],
        contribution[0],
        run.class_names,
        predicted,
        against=1 - predicted,
        plane=run.predictions["plane"][row],
        **title,
    )


def smaller(figure, path):
    """Write a figure at 140 dpi."""
    stream = BytesIO()
    figure.savefig(stream, dpi=200)
    with Image.open(stream) as picture:
        size = [round(SHRINK * side) for side in picture.size]
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    save(small, path)


def photograph(page, chromium):
    """Write the top of a page and some of its chapters, as screens show them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (chapter, width, size) in VIEWS.items():
            height = round(width * size[1] / size[0])
            view = browser.new_page(viewport={"width": width, "height": height})
            view.goto(f"{page.resolve().as_uri()}#{chapter}")
            view.wait_for_timeout(500)
            raw = view.screenshot()
            with Image.open(BytesIO(raw)) as picture:
                small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            save(small, IMAGES / f"{name}.png")
        browser.close()


def save(picture, path):
    """Write in 256 colours, rare ones among them."""
    few = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--chromium")
    chosen = parser.parse_args()
    runs = hs.read_experiment(chosen.demo)
    for name, figure in drawn(runs):
        smaller(figure, IMAGES / f"{name}.png")
    if chosen.page:
        photograph(chosen.demo / "report.html", chosen.chromium)
    for run in runs:
        head = hs.analyse_head(run)
        pair, accuracy = head.pairs[0], run.metrics["test"]["slice_accuracy"]["value"]
        rs = f"r {pair.r:.4f}, null {pair.r_null:.4f}"
        moved = f"displacement {head.displacement_ratio:.2f}"
        print(f"{run.name}: {rs}, {moved}, slices right {accuracy:.3f}")


if __name__ == "__main__":
    main()
