"""The steps of docs/container/Dockerfile in a clean root of Debian, and the program in it -> a table of what held.

    .venv/bin/python tests/container.py

No engine is needed: mmdebstrap makes the root, of the release that the base image has, from the mirror of this machine,
and each step is done in a chroot with its own mounts, as the user and with the environment that the Dockerfile says.
Needs root on Debian of that release and asks first, for it installs mmdebstrap and downloads TensorFlow; YES=1 answers.
The root lies in a temporary folder and is removed. Exit status 1 if something did not hold.
"""

import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from commands import ROOT
from tried import prepare, print_tries, run_system_command

from data import demo
from data.base.cli import run_guarded
from data.base.errors import InputError
from data.images import grids

DOCKERFILE = ROOT / "docs" / "container" / "Dockerfile"
APPTAINER = ROOT / "docs" / "container" / "apptainer.def"
HOME = "/opt/autism-blackout"
STRANGER = "4242:4242"  # a user whom the image does not know, as of `docker run --user`
SHARED_MEMORY = "size=64m"  # of /dev/shm, as Docker gives it
INDEX_OPTIONS = ("index-url", "extra-index-url", "proxy", "trusted-host", "timeout", "retries")
ASK = """This installs Debian's package mmdebstrap if it is missing, makes a Debian in a temporary folder, and downloads
what `make setup` does (about 1 GB) into it; all but the package is removed at the end. Go on? [y/N] """
MOUNTS = """\
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o {memory} tmpfs "$1/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$1/run"
"""


# What the recipes say


@dataclass(frozen=True)
class Recipe:
    """What an image is made of, in the order of the file; `files` are (source, target)."""

    base: str
    files: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    environment: dict[str, str]


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: (RUN, its command), ..."""
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    words = [line.split(None, 1) for line in lines if line.strip()]
    return [(word, " ".join(rest.split())) for word, rest in words]


def parse_copy(rest: str) -> list[tuple[str, str]]:
    """The source and the target of each file or folder of a COPY."""
    *sources, target = shlex.split(rest)
    if not target.endswith("/"):
        raise InputError(f"COPY {rest}: expected a target that ends with /, so that it is a folder.")
    folders = [source for source in sources if (ROOT / source).is_dir()]
    return [(source, target.rstrip("/") if source in folders else f"{target}{source}") for source in sources]


def parse_assignments(rest: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(rest))


def parse_dockerfile(text: str) -> Recipe:
    instruction_list = instructions(text)
    (base,) = (rest for word, rest in instruction_list if word == "FROM")
    files = [pair for word, rest in instruction_list if word == "COPY" for pair in parse_copy(rest)]
    environment = {
        name: value
        for word, rest in instruction_list
        if word == "ENV"
        for name, value in parse_assignments(rest).items()
    }
    return Recipe(base, tuple(files), tuple(rest for word, rest in instruction_list if word == "RUN"), environment)


def parse_apptainer(text: str) -> Recipe:
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    header, *section_texts = re.split(r"^%", text, flags=re.MULTILINE)
    sections = {
        name: body.strip().splitlines()
        for name, _, body in (section_text.partition("\n") for section_text in section_texts)
    }
    base = dict(line.split(": ", 1) for line in header.splitlines() if line.strip())["From"]
    files = tuple((source, target) for source, target in map(str.split, sections["files"]))
    exported = [line.strip().removeprefix("export ") for line in sections["environment"]]
    commands = tuple(" ".join(line.split()) for line in sections["post"])
    return Recipe(base, files, commands, parse_assignments(" ".join(exported)))


# The root


@dataclass(frozen=True)
class Image:
    """A root on disk and what the instructions up to now have set."""

    root: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    user: str = "0:0"
    folder: str = "/"
    command: tuple[str, ...] = ()

    def after(self, word: str, rest: str) -> "Image":
        """The image after an instruction. Raises InputError for one that is not known, or a command that fails."""
        if word == "COPY":
            for source, target in parse_copy(rest):
                self.copy(ROOT / source, target)
        elif word == "RUN":
            self.do(["/bin/sh", "-c", rest], has_network=True)
        elif word == "ENV":
            new = {name: self.expanded(value) for name, value in parse_assignments(rest).items()}
            return replace(self, environment=self.environment | new)
        elif word == "USER":
            return replace(self, user=rest)
        elif word == "WORKDIR":
            (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            return replace(self, folder=rest)
        elif word == "CMD":
            return replace(self, command=tuple(json.loads(rest)))
        elif word != "FROM":
            raise InputError(f"{DOCKERFILE} has {word}, which this script does not know; teach it here.")
        return self

    def copy(self, source: Path, target: str) -> None:
        target_path = self.root / target.lstrip("/")
        target_path.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target_path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target_path)

    def expanded(self, value: str) -> str:
        return re.sub(r"\$(\w+)", lambda match: self.environment.get(match[1], ""), value)

    def do(self, words: Iterable[object], has_network: bool = False, mounts: Iterable[str] = ()) -> str:
        """What a command printed, done as the user in the root; `mounts` are `SOURCE:TARGET` or `SOURCE:TARGET:ro`.
        Raises InputError if it failed."""
        script = "set -e\n" + MOUNTS.format(memory=SHARED_MEMORY)
        for mount in mounts:
            source, target, *read_only = mount.split(":")
            script += f'mkdir -p "$1{target}"\nmount --bind {shlex.quote(source)} "$1{target}"\n'
            script += f'mount -o remount,bind,ro "$1{target}"\n' if read_only else ""
        environment = [f"{name}={value}" for name, value in self.environment.items()]
        root_command = [
            "env",
            "-i",
            *environment,
            "/bin/sh",
            "-c",
            'cd "$0" && exec "$@"',
            self.folder,
            *map(str, words),
        ]
        script += f'exec chroot --userspec={self.user} "$1" {shlex.join(root_command)}\n'
        unshare_options = ["--mount", *([] if has_network else ["--net"])]
        return run_system_command("unshare", *unshare_options, "/bin/sh", "-c", script, "sh", self.root)


def read_release(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().replace('"', "").splitlines() if "=" in line)


def check_release(base: str) -> str:
    """The code name of the release of this machine. Raises InputError if it is another one than that of the base."""
    machine_release = read_release(Path("/etc/os-release"))
    version_match = re.match(r"debian:(\d+)", base)
    if not version_match or machine_release["ID"] != "debian" or machine_release["VERSION_ID"] != version_match[1]:
        raise InputError(
            f"The base is {base}, and this is {machine_release['ID']} {machine_release.get('VERSION_ID')}; nothing was "
            "tried."
        )
    return machine_release["VERSION_CODENAME"]


def mirror_lines() -> list[str]:
    """Debian's sources of packages as this machine's apt has them."""
    line_format = "$(ORIGIN)|deb [signed-by=$(SIGNED_BY)] $(SITE) $(RELEASE) $(COMPONENT)"
    source_lines = run_system_command(
        "apt-get", "indextargets", "--format", line_format, "Created-By: Packages"
    ).splitlines()
    return [line.removeprefix("Debian|") for line in dict.fromkeys(source_lines) if line.startswith("Debian|")]


def acquire_options() -> list[str]:
    """How this machine's apt reaches its mirror: proxies, and whether dates count."""
    lines = run_system_command("apt-config", "dump", "Acquire").splitlines()
    return [line for line in lines if re.match(r"Acquire::(https?::Proxy|Check-(Valid-Until|Date)) ", line)]


def make_root(base: str, target: Path) -> Image:
    """A Debian without anything but apt, which reaches mirror and package index as this machine does."""
    options = [f"--aptopt={line}" for line in acquire_options()]
    make_command = (
        "unshare",
        "--mount",
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
    )  # no mount is left if it is killed
    run_system_command(*make_command, *options, check_release(base), target, *mirror_lines())
    target.chmod(0o755)
    shutil.copy("/etc/resolv.conf", target / "etc" / "resolv.conf")
    config_lines = run_system_command(sys.executable, "-m", "pip", "config", "list").splitlines()
    config = {line.split(".", 1)[1].partition("=")[0]: shlex.split(line.partition("=")[2])[0] for line in config_lines}
    lines = ["[global]", *(f"{name} = {value}" for name, value in config.items() if name in INDEX_OPTIONS)]
    if certificates := config.get("cert"):
        shutil.copy(certificates, target / "etc" / "index.pem")
        lines.append("cert = /etc/index.pem")
    (target / "etc" / "pip.conf").write_text("\n".join([*lines, ""]))
    return Image(target)


# What is tried: each gives what was found, and whether it held


@dataclass(frozen=True)
class Tries:
    image: Image
    home: Path

    def user(self) -> tuple[str, bool]:
        """Its user."""
        user_id = self.image.do(["id", "-u"]).strip()
        touch_message = self.image.do(["sh", "-c", f"touch {HOME}/run.py 2>&1 || true"])
        return f"user {user_id}, who cannot change the program", user_id != "0" and "Permission denied" in touch_message

    def default_command(self) -> tuple[str, bool]:
        """Its command."""
        printed_text = self.image.do(self.image.command)
        return (
            f"{shlex.join(self.image.command)} prints {len(printed_text.splitlines())} lines",
            "--dataDir" in printed_text,
        )

    def demo(self) -> tuple[str, bool]:
        """`make demo` as this user, without a network."""
        self.image.do(["make", "-C", HOME, "demo", "DEMO=/tmp/demo"])
        folder = self.image.root / "tmp" / "demo"
        auc = json.loads((folder / "test" / "metrics.json").read_text())["auc"]["value"]
        expected_paths = [folder / "test" / "report.html", folder / "blackout" / "regions.csv"]
        return f"AUC {auc:.2f}", all(path.stat().st_size for path in expected_paths)

    def read_only(self) -> tuple[str, bool]:
        """A cohort mounted read-only, results in another folder, a user whom the image does not know, no network."""
        results = self.home / "results"
        results.mkdir()
        os.chown(results, *map(int, STRANGER.split(":")))
        mounts = [f"{self.home / 'cohort'}:/data/cohort:ro", f"{results}:/data/results"]
        stranger = replace(self.image, user=STRANGER, folder="/data/results")
        cohort_options = ("--dataDir", "../cohort", "--chkPointDir", "ckpt")
        stranger.do(["run.py", "--train", *cohort_options, "--numIters", 4], mounts=mounts)
        stranger.do(["run.py", "--test", *cohort_options], mounts=mounts)
        stranger.do(["abide-report", "results/mmnn-test"], mounts=mounts)
        check_output = stranger.do(["sh", "-c", "abide-data check ../cohort; true"], mounts=mounts)
        owners = {path.stat().st_uid for path in results.rglob("*")}
        report = results / "results" / "mmnn-test" / "report.html"
        has_passed = report.exists() and owners == {int(STRANGER.split(":")[0])} and "Traceback" not in check_output
        return f"trained, tested and checked; all files belong to user {STRANGER.split(':')[0]}", has_passed


def build_image(home: Path) -> Image:
    text = DOCKERFILE.read_text()
    image = make_root(parse_dockerfile(text).base, home / "root")
    for word, rest in instructions(text):
        image = image.after(word, rest)
    return image


def describe_image(image: Image) -> str:
    size = int(run_system_command("du", "-sm", image.root).split()[0]) / 1000
    debian = (image.root / "etc" / "debian_version").read_text().strip()
    return f"Debian {debian}, {image.do(['python', '--version']).strip()}, {size:.1f} GB"


def execute() -> int:
    prepare("container", ASK, {"mmdebstrap": "mmdebstrap"})
    with tempfile.TemporaryDirectory(prefix="container") as folder:
        home = Path(folder)
        home.chmod(0o755)
        demo.simulate_cohort(home / "cohort", grids.REDUCED, demo.Simulation(subjects=40, seed=1))
        image = build_image(home)
        tries = Tries(image, home)
        return print_tries(
            f"in a clean root, {describe_image(image)}",
            [tries.user, tries.default_command, tries.demo, tries.read_only],
        )


if __name__ == "__main__":
    sys.exit(run_guarded("container.py", execute))
