"""Asking one witness over HTTP: C2SP tlog-witness ``add-checkpoint``, sent as every request of the house is sent."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence

from countermark.log import Cosignature, CosignerKey, read_cosignatures, split_lines, with_lines
from countermark.model.errors import ConfigError, CountermarkError, SignatureError
from countermark.model.values import Request
from countermark.net import Answer, LostError, Network, NotSentError, Sender
from countermark.publish.exchange import SIZE_TYPE, Submission, parse_size

LINES_MAX = 16  # a witness may sign with several keys
TIMEOUT_MS = 5_000

_PREFIX = re.compile(r"(https?://[^/]+)(/[!-~]*)?")
_HEADERS = (("Content-Type", "text/plain; charset=utf-8"),)


class WitnessError(CountermarkError):
    """A witness did not cosign.

    ``code`` is one of ``witness_unreachable`` (ask again), ``witness_refused`` (it does not know the log or its key, or
    does not work), ``witness_bad_answer``, ``witness_other_log`` (it has seen another log under this name),
    ``behind_witness`` (it has seen more of the log than there is), ``no_quorum``.
    """

    code = "witness_refused"


class WitnessClient:
    """One witness at its submission prefix. Safe to use from many threads."""

    def __init__(
        self, name: str, key: CosignerKey, url: str, *, allowed: Sequence[Network] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        """``url`` is https, or http to this machine. Raises ``ConfigError``."""
        match = _PREFIX.fullmatch(url)
        if match is None or "?" in url or "#" in url:
            raise ConfigError(f"the witness {name} has no submission prefix to send to", code="bad_witness_policy",
                              hint="Write its URL behind its key: https://HOST/PREFIX.")  # fmt: skip
        self.name = name
        self._key = key
        self._sender = Sender(match[1], "text/plain, text/x.tlog.size", allowed=allowed, tls=tls)
        self._url = f"{match[1]}{(match[2] or '').rstrip('/')}/add-checkpoint"

    def add(self, submission: Submission, timeout_ms: int = TIMEOUT_MS) -> Cosignature | int:
        """Show the witness a head: its cosignature, or the size of the head that it has when that is another one.

        Raises:
            WitnessError: anything else; what the witness says is never taken for a cosignature unverified.
        """
        request = Request("POST", self._url, _HEADERS, submission.render())
        try:
            answer = self._sender.send(request, None, timeout_ms)
        except (NotSentError, LostError) as error:
            raise WitnessError(f"the witness {self.name} does not answer: {error.message}",
                               code="witness_unreachable", retryable=True) from None  # fmt: skip
        return self._read(answer, submission)

    def close(self) -> None:
        """Close idle connections."""
        self._sender.close()

    def _read(self, answer: Answer, submission: Submission) -> Cosignature | int:
        if answer.status == 200:
            return self._cosignature(answer.body, submission.note)
        if answer.status == 409 and answer.headers.get("content-type", "").partition(";")[0].strip() == SIZE_TYPE:
            size = parse_size(answer.body)
            if size is None:
                raise self._bad("a conflict without a size")
            if size != submission.old:
                return size
        if answer.status in (409, 422):
            raise WitnessError(
                f"the witness {self.name} has seen another log under this name", code="witness_other_log",
                hint="It keeps what it saw. Find out who signs with this log's key, or what was put back.",
            )  # fmt: skip
        what = {403: "does not accept the log's key", 404: "does not know this log"}
        why = what.get(answer.status, f"answers with status {answer.status}")
        later = answer.status == 429 or answer.status >= 500
        raise WitnessError(f"the witness {self.name} {why}", retryable=later,
                           hint="Its operator adds the log: `countermark witness add`.")  # fmt: skip

    def _cosignature(self, body: bytes, note: bytes) -> Cosignature:
        """The witness's own line among those that it answered; what others signed is not its to bring."""
        try:
            found = read_cosignatures(with_lines(note, split_lines(body, LINES_MAX)), [self._key])
        except SignatureError as error:
            raise self._bad(error.message) from None
        if len(found) != 1 or not found[0].at_s:
            raise self._bad("no line of its key that says when")
        return found[0]

    def _bad(self, why: str) -> WitnessError:
        return WitnessError(f"what the witness {self.name} answers is no cosignature: {why}", code="witness_bad_answer")
