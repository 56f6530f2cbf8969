"""What `run.py` does: checks a run, trains, tests, reduces, blacks out, reports."""

__version__ = "1.1.0"  # the only place: pyproject.toml reads it here, a test compares CITATION.cff and CHANGELOG.md
