"""`run.py` from any folder: the installed command of that name, which could not import a module like itself."""

import runpy
from pathlib import Path


def main() -> None:
    runpy.run_path(str(Path(__file__).parent.parent / "run.py"), run_name="__main__")


if __name__ == "__main__":
    main()
