"""How long the report of an experiment takes, and how heavy its page is: time, figures, bytes.

    python bench/report.py EXPERIMENT… [--rounds 3]

Copies each experiment (without its networks), draws its report once, so that stored analyses stand,
and then times further reports in the same process. Beside it: the same figures saved by a plain
`savefig` for each format, and embedded as they come in base64, on the same machine in turn.
"""

import argparse
import shutil
import tempfile
import time
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path

from markupsafe import Markup

from headscope.figures.style import apply_style
from headscope.reporting import pictures, write_report


@apply_style
def plain_save(figure, stem):
    """Save as matplotlib does by itself: each format laid out, tried and drawn."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        figure.savefig(stem.with_name(stem.name + suffix), dpi=pictures.DPI, metadata=metadata)
    return stem.with_name(f"{stem.name}.svg")


def plain_source(svg):
    return Markup("data:image/svg+xml;base64," + b64encode(svg.encode()).decode())


@contextmanager
def plainly():
    """Draw reports in the plain way."""
    kept = pictures.save_figure, pictures.slim, pictures.data_uri
    pictures.save_figure, pictures.slim, pictures.data_uri = plain_save, str, plain_source
    try:
        yield
    finally:
        pictures.save_figure, pictures.slim, pictures.data_uri = kept


def timed(folder):
    start = time.process_time()
    page = write_report(folder)
    return time.process_time() - start, page.stat().st_size


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| experiment | figures | plain, s | ours, s | ratio | plain page, MB | ours, MB |")
    print("|---|---|---|---|---|---|---|")
    for experiment in options.experiments:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / experiment.name
            leave = shutil.ignore_patterns("model.safetensors", "cache", "cohort", "figures")
            shutil.copytree(experiment, folder, ignore=leave)
            write_report(folder)
            plain, ours = [], []
            for _ in range(options.rounds):
                with plainly():
                    plain.append(timed(folder))
                ours.append(timed(folder))
            (before, large), (after, small) = min(plain), min(ours)
            count = len(list((folder / "figures").glob("*.svg")))
            print(
                f"| {experiment.name} | {count} | {before:.1f} | {after:.1f} "
                f"| {before / after:.2f} | {large / 1e6:.1f} | {small / 1e6:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
