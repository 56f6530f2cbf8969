"""Brain volumes and phenotypes: formats in, one cohort layout out, one loader for all models."""

__version__ = "1.2.0"  # the only place: pyproject.toml reads it here, a test compares CITATION.cff and CHANGELOG.md
