"""Floor 8: the command line. Thin: it reads words and files, asks the rooms below, and prints what they answer."""

from countermark.cli.app import cli, main

__all__ = ["cli", "main"]
