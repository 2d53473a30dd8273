"""The pictures of docs/final-layer.md and README.md, from a finished demo.

    headscope demo && python bench/doc_images.py headscope-demo

They are the figures that the demo's report shows, made smaller, so that whoever runs the demo sees
the same. With `--page` the top of the report is photographed too, which needs playwright and a
Chromium (`--chromium PATH`). The numbers in the text are to be read beside them: run by run they
are printed.
"""

import argparse
from pathlib import Path

from PIL import Image

import headscope as hs

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FROZEN = "tf_efficientnet_lite0-frozen-subject-seed0"
FIGURES = {
    "weights": f"fig3-weights-{FROZEN}",
    "before-after": f"before-after-{FROZEN}",
    "rows": "rows-tf_efficientnet_lite0",
    "logits": "fig2-logits-tf_efficientnet_lite0-seed0",
    "flattening": f"fig1-flattening-{FROZEN}",
    "collapse": "collapse-tf_efficientnet_lite0",
}
SHRINK = 0.7  # 200 dpi → 140
PAGE = 960, 1246  # pixels


def smaller(source, path):
    """Write a figure at 140 dpi."""
    with Image.open(source) as picture:
        size = [round(SHRINK * side) for side in picture.size]
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    save(small, path)


def photograph(page, path, chromium):
    """Write the top of a page as a wide screen shows it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        view = browser.new_page(viewport={"width": 1280, "height": round(1280 * PAGE[1] / PAGE[0])})
        view.goto(page.resolve().as_uri())
        view.screenshot(path=path)
        browser.close()
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize(PAGE, Image.Resampling.LANCZOS)
    save(small, path)


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
    for name, figure in FIGURES.items():
        smaller(chosen.demo / "figures" / f"{figure}.png", IMAGES / f"{name}.png")
    if chosen.page:
        photograph(chosen.demo / "report.html", IMAGES / "report.png", chosen.chromium)
    for run in hs.read_experiment(chosen.demo):
        head = hs.analyse_head(run)
        pair, accuracy = head.pairs[0], run.metrics["test"]["slice_accuracy"]["value"]
        rs = f"r {pair.r:.4f}, null {pair.r_null:.4f}"
        moved = f"displacement {head.displacement_ratio:.2f}"
        print(f"{run.name}: {rs}, {moved}, slices right {accuracy:.3f}")


if __name__ == "__main__":
    main()
