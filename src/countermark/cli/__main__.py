"""``python -m countermark.cli``."""

from countermark.cli.app import main

main(prog_name="countermark")
