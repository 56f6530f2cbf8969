"""What `run.py` does: checks a run, trains, tests, reduces, blacks out, reports."""

from data.base.processes import prepare_tensorflow

prepare_tensorflow()
