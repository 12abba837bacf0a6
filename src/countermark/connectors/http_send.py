"""Sending a prepared request, byte for byte, once: what connectors use of the room ``net``."""

from countermark.net import ANSWER_BYTES_MAX, Answer, LostError, NotSentError, Sender, origin_of

__all__ = ["ANSWER_BYTES_MAX", "Answer", "LostError", "NotSentError", "Sender", "origin_of"]
