"""`countermark-verify PACK [--trust FILE] [--json]`."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from countermark_verify.errors import TrustError, WorkerError
from countermark_verify.proof import verify_proof
from countermark_verify.recomputed import BUDGET_TICKS
from countermark_verify.report import EXIT_FAILED, EXIT_USAGE, ONLY, REQUIRED, as_json, as_text
from countermark_verify.trust import load_trust
from countermark_verify.verifier import verify
from countermark_verify.vouching import parse_nodes
from countermark_verify.workers import JOBS_MAX, examiners

_WIDTH = 40  # of the line that is wiped


class _Usage(Exception):
    """The command line itself is wrong; argparse's own exit code 2 would mean `incomplete`."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Usage(f"{self.format_usage()}{self.prog}: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="countermark-verify",
        description="Check an evidence pack offline, against what the auditor trusts.",
        epilog="exit codes: 0 verified, 1 refuted, 2 incomplete, 3 unreadable, 64 usage, 70 no verdict: it failed",
    )
    parser.add_argument("pack", metavar="PACK", help="the evidence pack (a zip file), or with --record a proof")
    parser.add_argument("--trust", metavar="FILE", help="the auditor's trust file; without it nothing can be verified")
    parser.add_argument("--record", metavar="FILE", help="PACK is a .tlog-proof, and this the record that it is of")
    parser.add_argument(
        "--rpc",
        metavar="CHAIN_ID=URL",
        action="append",
        default=[],
        help="ask this node of yours for the blocks of that chain's anchors; the only thing here that uses a network",
    )
    parser.add_argument(
        "--only",
        choices=sorted(ONLY),
        help="integrity: the steps V01 to V08 alone (hashes, order, streams, heads); never more than incomplete",
    )
    parser.add_argument(
        "--require",
        choices=REQUIRED,
        help="re-executed: incomplete unless every pure step of a workflow was executed again, to the same output",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=_jobs,
        help=f"read records in N processes, 1 to {JOBS_MAX} (1: in this one alone); without it, for a large pack, in as"
        " many as there are processors; the report is the same",
    )
    parser.add_argument(
        "--ticks",
        metavar="N",
        type=_ticks,
        default=BUDGET_TICKS,
        help="what executing pure steps of workflows again may take in all (%(default)s, at most 84 minutes of one"
        " processor); the pack is incomplete when that is not enough",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def _jobs(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= JOBS_MAX:
        raise argparse.ArgumentTypeError(f"{text!a} is no number from 1 to {JOBS_MAX}")
    return int(text)


def _ticks(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text[:20]):
        raise argparse.ArgumentTypeError(f"{text!a} is no number of ticks")
    return int(text[:20])


def _progress(records: int) -> None:
    """A line on the terminal that is written over; a small pack shows none."""
    if records:
        print(f"\r{records:,} records read", end="", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Verify one pack and print the report; the answer is the exit code. `argv` is without the program's name."""
    try:
        options = _parser().parse_args(argv)
        trust = load_trust(options.trust) if options.trust is not None else None
        nodes = parse_nodes(options.rpc)
        if options.record is not None and (options.only or options.require):
            raise _Usage("countermark-verify: --only and --require are for packs, not for the proof of a record")
    except (_Usage, TrustError) as error:
        print(str(error), file=sys.stderr)
        return EXIT_USAGE
    told = _progress if sys.stderr.isatty() else None
    try:
        if options.record is not None:
            report = verify_proof(options.pack, options.record, trust)
        else:
            with examiners(options.jobs, options.pack) as examiner:
                report = verify(
                    options.pack, trust, nodes, told, options.only, examiner, options.ticks, options.require
                )
    except WorkerError as error:
        print(f"countermark-verify: {error}; nothing was established", file=sys.stderr)
        return EXIT_FAILED
    if sys.stderr.isatty():
        print("\r" + " " * _WIDTH + "\r", end="", file=sys.stderr)
    sys.stdout.write(as_json(report) + "\n" if options.json else as_text(report, options.pack))
    return report.exit
