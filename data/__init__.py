"""Brain volumes and phenotypes: formats in, one cohort layout out, one loader for all models."""
