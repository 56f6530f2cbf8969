"""The recipes of docs/container/: the same base, files and commands in both, and those of `make setup`."""

import re
from pathlib import Path

import pytest
from commands import ROOT
from container import APPTAINER, DOCKERFILE, HOME, Image, instructions, parse_apptainer, parse_copy, parse_dockerfile
from pages import PAGES, read_page_source

DOCKER, OF_APPTAINER = parse_dockerfile(DOCKERFILE.read_text()), parse_apptainer(APPTAINER.read_text())
REQUIREMENTS = (ROOT / "requirements.txt").read_text()


def test_both_recipes_have_the_same_base_files_and_commands():
    assert DOCKER.files == OF_APPTAINER.files
    assert DOCKER.commands == OF_APPTAINER.commands
    assert DOCKER.base.partition("@")[2] == OF_APPTAINER.base.partition("@")[2]
    assert DOCKER.environment == OF_APPTAINER.environment | {"HOME": "/tmp"}  # whose user has a home of their own


def test_the_base_and_all_packages_are_pinned():
    assert re.fullmatch(r"debian:\d+\.\d+-slim@sha256:[0-9a-f]{64}", DOCKER.base)
    assert re.fullmatch(r"debian@sha256:[0-9a-f]{64}", OF_APPTAINER.base)
    packages = re.search("--no-install-recommends (.*?) &&", DOCKER.commands[0])[1].split()
    assert packages and all(re.fullmatch(r"[a-z0-9-]+=\d+\.\d+\.\*", package) for package in packages)


def test_python_packages_are_installed_by_make_setup_alone():
    system, *remaining_commands = DOCKER.commands
    assert system.startswith("apt-get update && apt-get install ") and "pip" not in system
    assert remaining_commands == [f"PIP_NO_CACHE_DIR=1 make -C {HOME} setup"]


def test_all_installed_sources_are_copied():
    """What pyproject.toml lists, with what `make setup` reads, and nothing that is not there."""
    sources = {source for source, _ in DOCKER.files}
    modules = {"abide_commands.py", "run.py", "data", "models", "utils"}
    assert {"Makefile", "pyproject.toml", "requirements.txt", "LICENSE"} | modules == sources
    assert all((ROOT / source).exists() and target == f"{HOME}/{source}" for source, target in DOCKER.files)


def test_the_image_does_not_run_as_root():
    users = [rest for word, rest in instructions(DOCKERFILE.read_text()) if word == "USER"]
    assert users and users[-1].split(":")[0] not in ("0", "root")


def test_the_version_for_a_gpu_matches_the_requirements():
    pinned = re.search(r"(?m)^tensorflow==(\S+)$", REQUIREMENTS)[1]
    documented_versions = re.findall(
        r"tensorflow\[and-cuda\]==([\d.]+)", "".join(map(read_page_source, PAGES)) + REQUIREMENTS
    )
    assert documented_versions == [pinned] * 3


def test_instructions_without_comments_and_broken_lines():
    text = "# a\nFROM x:1\n# b\nRUN one \\\n    && two\n\nENV A=$B/c:$A D=1\n"
    assert instructions(text) == [("FROM", "x:1"), ("RUN", "one && two"), ("ENV", "A=$B/c:$A D=1")]
    image = Image(Path("/nowhere"), {"A": "a", "B": "b"})
    assert image.after("ENV", "A=$B/c:$A D=1").environment == {"A": "b/c:a", "B": "b", "D": "1"}


def test_an_instruction_unknown_to_the_script_is_an_error():
    with pytest.raises(Exception, match="has ADD, which this script does not know"):
        Image(Path("/nowhere")).after("ADD", "x /y")
    with pytest.raises(Exception, match="expected a target that ends with /"):
        parse_copy("run.py /opt/run.py")
