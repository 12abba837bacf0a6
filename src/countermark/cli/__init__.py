"""Floor 8: the command line. Thin: it reads words and files, asks the rooms below, and prints what they answer."""

from countermark.cli.app import main

__all__ = ["main"]
