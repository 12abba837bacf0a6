"""Sending a prepared request, byte for byte, once: what connectors use of the room ``net``."""

from countermark.model.errors import ConfigError
from countermark.net import ANSWER_BYTES_MAX, Answer, LostError, NotSentError, Sender, origin_of

__all__ = ["ANSWER_BYTES_MAX", "Answer", "LostError", "NotSentError", "Sender", "no_credential", "origin_of"]


def no_credential(error: Exception, what: str) -> NotSentError:
    """Why a secret could not be used. Whatever went wrong there may quote it: only that there is none, or none yet."""
    if isinstance(error, ConfigError) and error.code == "not_enough_people":
        return NotSentError(f"too few people stand behind the policy for the credential of {what}", error.code)
    return NotSentError(f"no credential for {what}", "missing_secret")
