"""The figures and tables of the report, from tables alone."""
