"""What mkdocs makes besides the pages of docs/: the first page, and references from the source.

The README is the first page. The references follow from the typer app and from the names of the
library, so that no page of them can fall behind.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
FRONT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
OUTSIDE = re.compile(r"\]\(\.\./([\w./-]+)\)")  # what pages of docs/ link to beside it


def on_config(config):
    """Leave out of the navigation the pages that are not written yet."""
    config.nav = [entry for entry in map(_written, config.nav) if entry]
    return config


def _written(entry):
    title, target = next(iter(entry.items()))
    if isinstance(target, list):
        return {title: [page for page in map(_written, target) if page]}
    made = {*FRONT.values(), "reference/commands.md", "reference/library.md"}
    return entry if target in made or (ROOT / "docs" / target).is_file() else None


def on_files(files, config):
    """Add the generated pages, and the files of the repository that pages link to."""
    for name, page in FRONT.items():
        files.append(
            File.generated(config, page, content=_inside((ROOT / name).read_text("utf-8")))
        )
    texts = [path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")]
    linked = {name for text in texts for name in OUTSIDE.findall(text)}
    for name in sorted(linked | {"CITATION.cff", "LICENSE"} - set(FRONT)):
        if (ROOT / name).is_file():
            files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    for name, content in (("commands", command_reference()), ("library", library_reference())):
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_page_markdown(markdown, page, **_):
    """Let links of docs/ to files beside it, and its <img>, lead to their copies in the site."""
    if page.file.src_path.count("/"):
        return markdown
    if page.file.name != "index":  # mkdocs leaves raw HTML alone, and a page is a folder there
        markdown = markdown.replace('src="images/', 'src="../images/')
    return OUTSIDE.sub(r"](\1)", markdown)


def _inside(text):
    """Let links of the repository's root lead from the site's."""
    for name, page in FRONT.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text.replace("](docs/", "](").replace('src="docs/', 'src="')


def command_reference():
    """Return the page of the command line, from the typer app."""
    import typer
    from typer.cli import get_docs_for_click

    from headscope.cli import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="headscope")
    for name, part in command.commands.items():  # typer cuts what they do after 45 letters
        does = " ".join(part.help.split("\n\n")[0].split())
        text = re.sub(
            rf"^\* `{name}`: .*$", lambda _, n=name, d=does: f"* `{n}`: {d}", text, flags=re.M
        )
    return re.sub(r"^(Examples?: )(headscope .*)$", r"\1`\2`", text, flags=re.M)


def library_reference():
    """Return the page of the library: one entry for each name of `headscope.__all__`."""
    import headscope

    stub = (ROOT / "src" / "headscope" / "__init__.pyi").read_text("utf-8")
    imports = re.findall(r"^from (\.\S*) import (.+)$", stub, re.M)
    named = [
        (name.split(" as ")[-1], f"headscope{module.rstrip('.')}.{name.split(' as ')[0]}")
        for module, names in imports
        for name in names.split(", ")
    ]
    entries = sorted(named, key=lambda entry: headscope.__all__.index(entry[0]))
    head = (
        "# The library\n\nAfter `import headscope as hs`; a path may be text or a `pathlib.Path`.\n"
    )
    return head + "".join(
        f"\n::: {path}\n    options: {{heading: hs.{name}, toc_label: {name}}}\n"
        + (settings_table() if name == "Config" else "")
        for name, path in entries
    )


def settings_table():
    """Return the settings of an experiment and of its training with their defaults, as a table."""
    import headscope

    config = headscope.Config(data="scans")
    rows = [
        f"| `{name}` | `{str(value) if isinstance(value, Path) else value!r}` |"
        for part in (config, config.recipe)
        for name, value in vars(part).items()
        if name not in ("data", "recipe") and not name.startswith("_")
    ]
    return "\n| setting | default |\n|---|---|\n" + "\n".join(rows) + "\n"
