"""Runs: execute notebooks and jobs, reuse what is up to date, store results."""
