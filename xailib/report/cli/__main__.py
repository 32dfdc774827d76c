"""``python -m xailib.report.cli``."""

from xailib.report.cli import main

main(prog_name="xailib")
