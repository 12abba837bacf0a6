"""`countermark-verify PACK [--trust FILE] [--json]`."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from countermark_verify.errors import TrustError
from countermark_verify.report import EXIT_USAGE, as_json, as_text
from countermark_verify.trust import load_trust
from countermark_verify.verifier import verify


class _Usage(Exception):
    """The command line itself is wrong; argparse's own exit code 2 would mean `incomplete`."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Usage(f"{self.format_usage()}{self.prog}: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="countermark-verify",
        description="Check an evidence pack offline, against what the auditor trusts.",
        epilog="exit codes: 0 verified, 1 refuted, 2 incomplete, 3 unreadable, 64 usage",
    )
    parser.add_argument("pack", metavar="PACK", help="the evidence pack (a zip file)")
    parser.add_argument("--trust", metavar="FILE", help="the auditor's trust file; without it nothing can be verified")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Verify one pack and print the report; the answer is the exit code. `argv` is without the program's name."""
    try:
        options = _parser().parse_args(argv)
        trust = load_trust(options.trust) if options.trust is not None else None
    except (_Usage, TrustError) as error:
        print(str(error), file=sys.stderr)
        return EXIT_USAGE
    report = verify(options.pack, trust)
    sys.stdout.write(as_json(report) + "\n" if options.json else as_text(report))
    return report.exit
