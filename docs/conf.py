"""The site of the documentation, which `make docs` builds. The root of the repository is its source, and what only
Sphinx understands is added here, so that the same pages are read on GitHub."""

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

from data import __version__

project, version = "autism-blackout", __version__
SECTIONS = {
    "Start": [f"/docs/start/{page}" for page in ("install", "tutorial")],
    "How-to": [f"/docs/howto/{page}" for page in ("scans", "atlas", "data", "cohort", "run", "own_model", "share")],
    "Understand": [f"/docs/understand/{page}" for page in ("report", "statistics", "blackout", "models", "planning")],
    "Reference": [f"/docs/reference/{page}" for page in ("commands", "files", "glossary", "evidence")],
    "Project": ["README </README>", "/ARCHITECTURE", "/CONTRIBUTING", "/CHANGELOG"],
}
PROGRAM_BY_MODULE = {
    "run": "run.py",
    "data.__main__": "abide-data",
    "utils.report.__main__": "abide-report",
    "utils.compare.__main__": "abide-compare",
    "utils.bundle.__main__": "abide-bundle",
}

extensions = ["myst_parser", "sphinx_argparse_cli"]
root_doc = "docs/index"
include_patterns = ["*.md", f"{root_doc}.md", "docs/*/*.md"]
exclude_patterns = [".*", "results", "site"]
highlight_language = "none"  # of blocks that name no language
smartquotes = False  # they make one dash of the two of an option
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as GitHub makes them

html_title = project
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "navbar_center": [],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
}
html_context = {"default_mode": "auto"}  # light or dark as the reader has it
html_sidebars = {"**": ["sections"]}
html_extra_path = ["_extra"]
html_static_path, html_css_files = ["_static"], ["site.css"]
html_show_search_summary = False  # it is fetched, which a browser does not do on disk
html_copy_source = False
html_math_renderer = "mathml"
templates_path = ["_templates"]


def add_site_contents(app, page, source):
    """The contents of the site to its first page, and what the parsers say to the page of the commands."""
    if page == root_doc:
        for title, pages in SECTIONS.items():
            source[0] += "\n".join(["\n```{toctree}", ":hidden:", f":caption: {title}", *pages, "```\n"])
    if page == "docs/reference/commands":
        for module, title in PROGRAM_BY_MODULE.items():
            source[0] += f"\n```{{eval-rst}}\n.. sphinx_argparse_cli::\n   :module: {module}\n   :func: parser\n"
            source[0] += f"   :title: {title}\n   :usage_width: 76\n   :no_default_values:\n```\n"


def write_formula(translator, node):
    """MathML, which browsers show without a script; a long formula scrolls."""
    if node.tagname == "math":
        translator.body.append(convert(node.astext()))
    else:
        formula = convert(node.astext(), display="block")
        translator.body.append(f'<p tabindex="0" style="overflow-x: auto">{formula}</p>\n')
    raise SkipNode


def setup(app):
    app.connect("source-read", add_site_contents)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
