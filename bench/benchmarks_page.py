"""docs/benchmarks.md, from the files of bench/results: `python bench/all.py --page`."""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

What headscope costs and how often its numbers are right, each with the command that measures it.
`python bench/all.py --page` writes this page from the files of `bench/results/`, to which a test
holds it.

"""


PARTS = {  # other files of results come last
    "Beside peers": ("throughput", "slices", "frozen"),
    "Whether numbers are right": (
        "coverage", "interval", "null", "weight_tests", "confounders", "inferred", "novelty",
        "evaluate", "explanations",
    ),
    "Whether nothing is lost": ("damage", "kill_resume"),
}  # fmt: skip
LAST = "What it costs"


def write():
    """Write the page."""
    PAGE.write_text(text(), encoding="utf-8")


def text():
    """Return the page: the short form of all, then what each benchmark measured in full."""
    short = json.loads((HERE / "results" / "short.json").read_text(encoding="utf-8"))
    files = {path.stem: path for path in sorted((HERE / "results").glob("*.md"))}
    named = {name for names in PARTS.values() for name in names}
    sections = PARTS | {LAST: tuple(name for name in files if name not in named)}
    parts = [HEAD, of_short(short)]
    for title, names in sections.items():
        parts += [f"## {title}\n", *(of_file(files[name]) for name in names if name in files)]
    return "\n".join(parts).rstrip("\n") + "\n"


def of_short(short):
    """Return the table of figures and targets, with hardware and versions."""
    environment = dict(short["environment"])
    minutes = sum(bench["cpu_seconds"] for bench in short["benchmarks"].values()) / 60
    machine = [environment.pop(name) for name in ("processor", "cores", "load", "system")]
    versions = ", ".join(f"{name} {number}" for name, number in environment.items())
    lines = [
        "## All in short form\n",
        f"`python bench/all.py`, {minutes:.0f} minutes of a processor: {machine[0]}, {machine[1]} "
        f"cores, load {machine[2]} at the end, {machine[3]}; {versions}. Targets of shares leave "
        "room for the scatter of few rounds; the tables below are the measurements.\n",
        "| benchmark | figure | value | target | |",
        "|---|---|--:|--:|---|",
    ]
    for name, bench in short["benchmarks"].items():
        for figure in bench.get("figures", []):
            mark = {True: "met", False: "**missed**", None: ""}[figure["met"]]
            gap = "" if figure["unit"] in ("", "%") else " "
            value = f"{figure['value']:.3g}{gap}{figure['unit']}"
            lines.append(f"| `{name}` | {figure['name']} | {value} | {figure['target']} | {mark} |")
        for state in ("skipped", "failed"):
            if state in bench:
                lines.append(f"| `{name}` | {state}: {bench[state]} | | | |")
    if short["not measured"]:
        lines += ["", f"Not in this measurement: {', '.join(short['not measured'])}."]
    lines += ["", "Without a short form:\n"]
    lines += [f"* `bench/{name}.py`: {reason}." for name, reason in short["long"].items()]
    return "\n".join(lines) + "\n"


def of_file(path):
    """Return a file of results, its headings two levels lower, with a link to the file."""
    body = re.sub(r"^(#+) ", r"##\1 ", path.read_text(encoding="utf-8").strip(), flags=re.M)
    body = body.replace("](../../docs/", "](")
    return f"{body}\n\nFrom [{path.name}](../bench/results/{path.name}).\n"


if __name__ == "__main__":
    write()
