"""``python -m xailib.cli``."""

from xailib.cli import main

main(prog_name="xailib")
