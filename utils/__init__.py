"""What `run.py` does: checks a run, trains, tests, reduces, blacks out, reports."""
