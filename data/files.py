"""Writing without loss: a file appears whole under its name or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, mode: str = "w", **options) -> Iterator[IO]:
    """Opens a temporary file beside `path` that takes its place when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, **options) as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    with replacing(path, encoding="utf-8") as file:
        file.write(json_text(content))


def json_text(content: object) -> str:
    return json.dumps(content, indent=2) + "\n"
