"""The installed commands, in a module whose name no folder of a lab has: each runs a program that lies beside it."""

import os
import sys

HOME = os.path.dirname(os.path.abspath(__file__))


def start(module: str) -> None:
    """Runs a module as `python -m` does. Modules are searched in its own folder first, and not in the working folder,
    even if an empty entry of PYTHONPATH stands for that; processes that it starts do likewise."""
    sys.path[:] = [HOME, *outside(sys.path)]
    os.environ["PYTHONPATH"] = os.pathsep.join(outside(os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    import signal  # that of Python, now

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as nohup has it
        signal.signal(signal.SIGINT, end_at_once)
    import runpy

    runpy.run_module(module, run_name="__main__")


def end_at_once(*_: object) -> None:
    """Ctrl-C while modules are imported, when nothing has begun; `data.base.terminal.start` takes over."""
    os.write(2, f"{os.path.basename(sys.argv[0])}: interrupted; repeat the command.\n".encode())
    os._exit(130)


def outside(places: list[str]) -> list[str]:
    """Those that are not the working folder."""
    return [place for place in places if not is_working_folder(place)]


def is_working_folder(place: str) -> bool:
    """Whether an entry of `sys.path`, which need not exist, is the working folder, which may be gone."""
    try:
        return os.path.samefile(place or ".", ".")
    except OSError:
        return False


def run() -> None:
    start("utils")


def data() -> None:
    start("data")


def report() -> None:
    start("utils.report")


def compare() -> None:
    start("utils.compare")


def bundle() -> None:
    start("utils.bundle")
