"""Every page that the program makes, in a real browser, before an automatic checker of accessibility (axe) -> a table.

    .venv/bin/python tests/browser.py [FOLDER ...] [--pictures DIR]

Without a FOLDER, the commands in `STEPS` make pages of a few people in a temporary folder. All *.html files there,
or in each FOLDER, are read: at two widths in light and dark as well as printed, as they open and with all that folds
unfolded. Rules of axe are WCAG 2.1 A and AA and its best practices; none is disabled, frames are read, too. What axe
cannot decide is counted. No page may reach outside the disk. Exit status 1 if anything was found, 2 without a browser.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import lab
from pages import split_module
from tried import PROCESS_ENVIRONMENT, SIDE_BY_SIDE, print_table_head

from data.base.cli import run_guarded
from data.base.errors import InputError

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")
NARROW, WIDE, HEIGHT = 400, 1280, 900  # CSS pixels, as all lengths here
PAPER = 718  # A4 upright with margins of 10 mm
# a browser prints a page smaller that is wider than paper, up to this, and cuts off what is wider still
MAX_PRINT_SHRINKAGE = 1.5
SETTLED_MS = 800  # the brain viewer fits its frame 500 ms after it is loaded
PATIENCE_MS = 600_000  # on a machine that has much else to do
MOST_TABS = 3000
ON_DISK = ("file:", "data:", "blob:", "about:")
FAULTS = {"color-contrast", "image-alt", "not loaded", "link", "keyboard", "too wide", "leaves the disk", "console"}
FAULTY = """<!doctype html><html lang="en"><title>Faults</title><main><h1>Faults</h1><p style="color: #999">pale</p>
<img src="missing.png"><a href="#nowhere">no id</a><table><tr><th onclick="0">no Tab</th></tr></table>
<div style="width: 2000px">wide</div><script src="https://localhost/far.js"></script></main></html>"""

PEOPLE = 160  # enough for calibrated probabilities in folds
COHORT_OPTIONS = "--dataDir cohort --chkPointDir ckpt"
FOLD_OPTIONS = "--folds 3 --set members=1 --set batch_size=16"
STEPS = f"""
    abide-data derive fmriprep maps --maps falff,alff --series lab/parcels.nii.gz
    abide-data convert lab cohort --grid reduced --maps falff,alff --connectome rois_made --parcels lab/parcels.nii.gz

    run.py --train {COHORT_OPTIONS} {FOLD_OPTIONS} --numIters 60
    run.py --train --model nn {COHORT_OPTIONS} {FOLD_OPTIONS} --numIters 60
    abide-data check cohort --html check.html

    run.py --test {COHORT_OPTIONS} --folds 3
    run.py --test --model nn {COHORT_OPTIONS} --folds 3

    run.py --blackout {COHORT_OPTIONS} --folds 3 --donors 1
    run.py --blackout --model nn {COHORT_OPTIONS} --folds 3 --donors 1
    run.py --train --everybody --score results/mmnn-test-folds-3 {COHORT_OPTIONS}
    abide-compare results/mmnn-test-folds-3 results/nn-test-folds-3

    abide-bundle ckpt/mmnn/everybody model.zip

    abide-data convert new others --like model.zip

    run.py --test --bundle model.zip --dataDir others --outDir results/bundle-test

    abide-report results
"""

IDS = "() => [...document.querySelectorAll('[id]')].map(of => of.id)"
LINKS = "() => [...document.querySelectorAll('a[href]')].map(of => [of.getAttribute('href'), of.href])"
FOLDS = "() => document.querySelectorAll('details:not([open])').length"
UNFOLD = "() => document.querySelectorAll('details').forEach(of => of.open = true)"
WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
WIDEST_ELEMENT = """() => [...document.body.querySelectorAll('*')].filter(of => {
  for (let at = of.parentElement; at; at = at.parentElement)
    if (getComputedStyle(at).overflowX != 'visible') return false;
  return of.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
}).map(of => `${of.localName} below ${of.closest('section')?.querySelector('h2')?.textContent}`).slice(-1).join()"""
SORTABLE = """() => {
  const control = of => of.querySelector('button:not([popovertarget])') || (of.onclick ? of : null);
  window.controls = [...document.querySelectorAll('th')].map(control).filter(of => of);
  window.reached = new Set();
  return window.controls.length;
}"""
FOCUSED = """() => {
  const of = document.activeElement;
  if (!window.controls.includes(of) || window.reached.has(of)) return of && of != document.body ? 'other' : 'end';
  window.reached.add(of);
  return 'heading';
}"""
SORTED = "() => ['ascending', 'descending'].includes(document.activeElement.closest('th').ariaSort)"
FOCUSED_TEXT = "() => document.activeElement.textContent.trim()"
UNREACHED = "() => window.controls.filter(of => !window.reached.has(of)).map(of => of.textContent.trim())"


@dataclass(frozen=True)
class View:
    """How a page is looked at."""

    width: int
    scheme: str = "light"
    media: str = "screen"

    def __str__(self) -> str:
        return "print" if self.media == "print" else f"{self.width} {self.scheme}"


VIEWS = (*(View(width, scheme) for width in (NARROW, WIDE) for scheme in ("light", "dark")), View(PAPER, media="print"))
AS_OPENED = (VIEWS[0], VIEWS[3])  # before all is unfolded, too


@dataclass
class Finding:
    """A rule that elements break: the first of them, the most of them in a view, and in which views."""

    rule: str
    element: str
    number: int = 1
    views: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        repetition = f" and {self.number - 1} like it" if self.number > 1 else ""
        return f"{self.rule} | {self.element.replace('|', '/')}{repetition} | {', '.join(self.views) or 'any'}"


@dataclass
class Findings:
    """What was found on one page; what axe could not decide: rule -> how many elements at most."""

    finding_by_key: dict[tuple[str, str], Finding] = field(default_factory=dict)
    undecided: Counter = field(default_factory=Counter)
    folds: int = 0

    def add(self, rule: str, element: str, view: View | None = None, number: int = 1) -> None:
        """Elements that differ in numbers only are one finding."""
        element = " ".join(element.split())[:200]
        finding = self.finding_by_key.setdefault((rule, re.sub(r"\d+", "", element)), Finding(rule, element))
        finding.number = max(finding.number, number)
        if view and str(view) not in finding.views:
            finding.views.append(str(view))


# One page


def check_page(path: Path, pictures: Path | None) -> Findings:
    """All findings on a page, in a browser of its own; `pictures` is a folder."""
    executable, axe, playwright = find_engines()
    findings = Findings()
    with playwright() as playwright_session:
        browser = playwright_session.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for view in VIEWS:
            page = browser.new_page(viewport={"width": view.width, "height": HEIGHT}, offline=True)
            page.set_default_timeout(PATIENCE_MS)
            page.on(
                "console",
                lambda console_message: (
                    findings.add("console", console_message.text) if console_message.type == "error" else None
                ),
            )
            page.on("pageerror", lambda error: findings.add("console", str(error)))
            page.on(
                "request",
                lambda request: (
                    None if request.url.startswith(ON_DISK) else findings.add("leaves the disk", request.url)
                ),
            )
            page.on("requestfailed", lambda request: findings.add("not loaded", request.url[:100]))
            page.emulate_media(media=view.media, color_scheme=view.scheme)
            page.goto(path.resolve().as_uri())
            page.wait_for_timeout(SETTLED_MS if len(page.frames) > 1 else 0)
            folds = page.evaluate(FOLDS)
            findings.folds = max(findings.folds, folds)
            take_picture(page, pictures, f"{view}")
            if view in AS_OPENED or not folds:
                check_accessibility(page, axe, view, findings)
            if folds:
                page.evaluate(UNFOLD)
                take_picture(page, pictures, f"{view} unfolded")
                check_accessibility(page, axe, view, findings)
            if view == VIEWS[-2]:
                follow_links(page, path, findings)
                check_keyboard(page, findings)
            page.close()
        browser.close()
    return findings


def take_picture(page: "Page", pictures: Path | None, name: str) -> None:
    if pictures:
        page.screenshot(path=pictures / f"{name.replace(' ', '-')}.png", full_page=True)


def check_accessibility(page: "Page", axe: str, view: View, findings: Findings) -> None:
    """What axe says of a page as it now is, and whether it is too wide. Colours are compared without gradients, as axe
    cannot do with them: shadows at the edge of a table."""
    content_width, window_width = page.evaluate(WIDTHS)
    if content_width > window_width * (MAX_PRINT_SHRINKAGE if view.media == "print" else 1):
        findings.add("too wide", f"{content_width} of {window_width} pixels, {page.evaluate(WIDEST_ELEMENT)}", view)
    for frame in page.frames:
        frame.evaluate(axe)
        frame.evaluate("() => axe.configure({allowedOrigins: ['<unsafe_all_origins>']})")  # files have no origin
    style_tag = page.add_style_tag(content="* { background-image: none !important }")
    options = {"runOnly": list(RULES), "resultTypes": ["violations", "incomplete"]}
    axe_report = page.evaluate("options => axe.run(options)", options)
    style_tag.evaluate("of => of.remove()")
    for rule in axe_report["violations"]:
        selectors = [" in ".join(map(str, reversed(node["target"]))) for node in rule["nodes"]]
        counts = Counter(re.sub(r"\d+", "", selector_text) for selector_text in selectors)
        for selector in selectors:
            findings.add(rule["id"], selector, view, counts[re.sub(r"\d+", "", selector)])
    for rule in axe_report["incomplete"] if view.width == WIDE else []:  # where no table scrolls over its first column
        findings.undecided[rule["id"]] = max(findings.undecided[rule["id"]], len(rule["nodes"]))


def follow_links(page: "Page", path: Path, findings: Findings) -> None:
    """Each link in the page leads to an element that exists, each to a file to one that exists."""
    for href, link_url in page.evaluate(LINKS):
        url = urlsplit(link_url)
        if url.scheme != "file":
            if url.scheme not in ("https", "mailto"):
                findings.add("link", href)
            continue
        target = Path(unquote(url.path))
        if not target.exists():
            findings.add("link", f"{href}: no such file")
        elif url.fragment:
            is_same_page = target.samefile(path)
            ids = (
                page.evaluate(IDS)
                if is_same_page
                else re.findall(r'\bid="?([^"\s>]+)', target.read_text(encoding="utf-8"))
            )
            if unquote(url.fragment) not in ids:
                findings.add("link", f"{href}: no such id")


def check_keyboard(page: "Page", findings: Findings) -> None:
    """By Tab alone every heading that sorts is reached, and Enter sorts by it."""
    if not page.evaluate(SORTABLE):
        return
    page.evaluate("() => document.activeElement?.blur()")
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused == "end":
            break
        if focused == "heading":
            page.keyboard.press("Enter")
            if not page.evaluate(SORTED):
                findings.add("keyboard", f"Enter does not sort by {page.evaluate(FOCUSED_TEXT)!r}")
    if unreached := page.evaluate(UNREACHED):
        findings.add("keyboard", f"Tab does not reach {len(unreached)} headings that sort, first {unreached[0]!r}")


# Pages of people made up


def make_pages(pages_folder: Path) -> None:
    """Does all steps in a folder. Raises InputError where a command fails."""
    lab.pcp(pages_folder / "lab", lab.people(PEOPLE), ("falff", "alff"), series=True)
    lab.pcp(pages_folder / "new", lab.people(24, 60002), ("falff", "alff"), series=True)
    lab.bold(pages_folder / "fmriprep", lab.people(6, 1))
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for step in STEPS.strip().split("\n\n"):
            list(pool.map(partial(run_step, pages_folder), map(str.strip, step.splitlines())))


def run_step(home: Path, line: str) -> None:
    """Does a command, and says how long it took."""
    words, start_time = shlex.split(line), time.monotonic()
    module, arguments = ("run", words[1:]) if words[0] == "run.py" else split_module(words)
    command = (sys.executable, "-m", module, *arguments)
    done = subprocess.run(command, cwd=home, env=os.environ | PROCESS_ENVIRONMENT, capture_output=True, text=True)
    if done.returncode > ("convert" in words or "check" in words):  # 1 says that the people made up have problems
        raise InputError(f"{line} ended with {done.returncode}: {done.stderr[-400:]}")
    print(f"{time.monotonic() - start_time:.0f} s: {line}", file=sys.stderr, flush=True)


# All pages


def find_engines() -> tuple[str, str, Callable[[], AbstractContextManager]]:
    """The path of a browser, the text of axe, and what starts Playwright. Raises InputError where one is missing."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        raise InputError("There is no browser here: expected chromium. Install it (Debian: apt-get install chromium).")
    try:
        from axe_playwright_python.base import AXE_SCRIPT
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as missing_error:
        raise InputError(
            f"There is no module {missing_error.name}. Install the extra `pages`, as `make pages` does."
        ) from None
    return browser, AXE_SCRIPT, sync_playwright


def check_faults(folder: Path) -> None:
    """Raises InputError unless each fault of a page that is full of them is found."""
    path = folder / "faults.html"
    path.write_text(FAULTY)
    if missed_rules := FAULTS - {rule for rule, _ in check_page(path, None).finding_by_key}:
        raise InputError(f"Of the faults planted in {path}, this is not found: {', '.join(sorted(missed_rules))}.")


def read_all(pages: dict[str, Path], pictures: Path | None) -> int:
    """Reads pages, prints what was found, and counts it."""
    lines = []
    folders = [pictures and pictures / re.sub(r"\W+", "-", name.removesuffix(".html")) for name in pages]
    print(f"Each page was read as follows: {', '.join(map(str, VIEWS))}.\n")
    print_table_head("page", "kB", "folds opened", "findings", "axe cannot decide")
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for (name, path), findings in zip(pages.items(), pool.map(check_page, pages.values(), folders), strict=True):
            undecided = ", ".join(f"{rule} {count}" for rule, count in findings.undecided.items()) or "nothing"
            size_kb = f"{path.stat().st_size / 1000:,.0f}"
            print(
                f"| {name} | {size_kb} | {findings.folds} | {len(findings.finding_by_key) or 'none'} | {undecided} |",
                flush=True,
            )
            lines += [f"| {name} | {finding} |" for finding in findings.finding_by_key.values()]
    print()
    print_table_head("page", "rule", "element", "where")
    print(*lines, sep="\n")
    return len(lines)


def execute() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="a folder for pictures of each page")
    args = parser.parse_args()
    find_engines()  # before anything is made
    with tempfile.TemporaryDirectory(prefix="pages-") as folder:
        home = Path(folder)
        check_faults(home)
        if not args.folders:
            (home / "made").mkdir()
            make_pages(home / "made")
        folders = args.folders or [home / "made"]
        pages = {
            str(path.relative_to(folder.parent)): path for folder in folders for path in sorted(folder.rglob("*.html"))
        }
        if not pages:
            raise InputError(f"No page lies in {', '.join(map(str, folders))}; name folders with pages.")
        return int(read_all(pages, args.pictures) > 0)


if __name__ == "__main__":
    sys.exit(run_guarded("browser.py", execute))
