"""`write_figures`: an experiment's record → what its paper needs, in one folder."""

from pathlib import Path
from typing import Final

import pandas as pd

from headscope.analysis.results.table import full_table
from headscope.console import busy, track
from headscope.errors import InputError
from headscope.files import write_table, write_text
from headscope.supplement.card import model_card
from headscope.supplement.characteristics import characteristics_frame, characteristics_table
from headscope.supplement.checklists import LISTS, checklist
from headscope.supplement.export import export
from headscope.supplement.methods import methods
from headscope.supplement.pictures import pictures
from headscope.supplement.prose import Facts, references
from headscope.supplement.study import Study, read_study
from headscope.tables import Table
from headscope.threads import one_blas_thread

FOLDER: Final = "paper"
ALSO_CITED: Final = ["tejani2024", "collins2024", "mitchell2019"]  # by checklists and card


@busy("Writing for the paper")
@one_blas_thread
def write_figures(experiment: Path | str, out: Path | str | None = None) -> Path:
    """Write what a paper on an experiment needs; return the folder.

    Figures at 85 and 174 mm as PDF, SVG and PNG, each with its data as TSV; the table of results
    and Table 1 as TSV, Markdown and LaTeX; the methods as text, Markdown and LaTeX with BibTeX, and
    where each of their numbers is recorded; the checklists CLAIM 2024 and TRIPOD+AI; a model card.
    The same record gives the same bytes.

    Parameters
    ----------
    experiment
        Folder of an experiment with a finished run.
    out
        Where to write; the folder `paper` of the experiment by default.

    Raises
    ------
    InputError
        The folder is no experiment, or holds no finished run; `out` is a file.

    Examples
    --------
    >>> folder = hs.write_figures("first")
    >>> (folder / "fig2-logits-85mm.pdf").is_file(), (folder / "methods.md").is_file()
    (True, True)
    """
    study = read_study(experiment)
    folder = study.folder / FOLDER if out is None else Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder with --out.")
    _write_tables(study, folder)
    _write_methods(study, folder)
    _write_checklists(study, folder)
    _write_pictures(study, folder)
    return folder


def _write_tables(study: Study, folder: Path) -> None:
    write_table(folder / "table.tsv", study.table)
    _write_forms(full_table(study.table), folder / "table")
    main = study.main
    frames = [characteristics_frame(run, study.participants) for run in study.splits.values()]
    write_table(folder / "table1.tsv", frames[0])
    if len(frames) > 1:
        write_table(folder / "table1-splits.tsv", pd.concat(frames, ignore_index=True))
    _write_forms(characteristics_table(main, study.participants), folder / "table1")


def _write_forms(table: Table, stem: Path) -> None:
    write_text(stem.with_name(f"{stem.name}.md"), table.to_markdown() + "\n")
    write_text(stem.with_name(f"{stem.name}.tex"), table.to_latex() + "\n")


def _write_methods(study: Study, folder: Path) -> None:
    facts = Facts()
    prose = methods(study, facts)
    write_text(folder / "methods.txt", prose.to_text())
    write_text(folder / "methods.md", prose.to_markdown())
    write_text(folder / "methods.tex", prose.to_latex())
    write_table(folder / "methods-numbers.tsv", facts.to_frame())
    write_text(folder / "references.bib", references([*prose.cited, *ALSO_CITED]))


def _write_checklists(study: Study, folder: Path) -> None:
    facts = Facts()
    for name, stem in LISTS.items():
        table = checklist(name, study, facts)
        write_table(folder / f"{stem}.tsv", table.to_frame())
        write_text(folder / f"{stem}.md", f"# {table.title}\n\n{table.to_markdown()}\n")
    write_text(folder / "model-card.md", model_card(study, facts))


def _write_pictures(study: Study, folder: Path) -> None:
    lines, made = [], pictures(study)
    for picture in track(made, "Drawing figures", total=len(made)):
        export(picture.draw, folder / picture.name)
        write_table(folder / f"{picture.name}.tsv", picture.data)
        lines.append(f"**{picture.name}.** {picture.caption}")
    write_text(folder / "captions.md", "\n\n".join(lines) + "\n")
