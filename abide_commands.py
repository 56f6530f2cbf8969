"""The installed commands, in a module whose name no folder of a lab has: each runs a program that lies beside it."""

import os
import sys

PROGRAM_FOLDER = os.path.dirname(os.path.abspath(__file__))


def run_module(module_name: str) -> None:
    """Runs a module as `python -m` does. Modules are searched in its own folder first, and not in the working folder,
    even if an empty entry of PYTHONPATH stands for that; processes that it starts do likewise."""
    sys.path[:] = [PROGRAM_FOLDER, *drop_working_folder(sys.path)]
    os.environ["PYTHONPATH"] = os.pathsep.join(drop_working_folder(os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    import signal  # that of Python, now

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as nohup has it
        signal.signal(signal.SIGINT, exit_on_interrupt)
    import runpy

    runpy.run_module(module_name, run_name="__main__")


def exit_on_interrupt(*_: object) -> None:
    """Ctrl-C while modules are imported, when nothing has begun; `data.base.terminal.run_program` takes over."""
    os.write(2, f"{os.path.basename(sys.argv[0])}: interrupted; repeat the command.\n".encode())
    os._exit(130)


def drop_working_folder(search_paths: list[str]) -> list[str]:
    """Those that are not the working folder."""
    return [search_path for search_path in search_paths if not is_working_folder(search_path)]


def is_working_folder(search_path: str) -> bool:
    """Whether an entry of `sys.path`, which need not exist, is the working folder, which may be gone."""
    try:
        return os.path.samefile(search_path or ".", ".")
    except OSError:
        return False


def run() -> None:
    run_module("utils")


def data() -> None:
    run_module("data")


def report() -> None:
    run_module("utils.report")


def compare() -> None:
    run_module("utils.compare")


def bundle() -> None:
    run_module("utils.bundle")
