"""Names against a watchlist, as a screening job does it when master data or list change: by what a name looks like.

``screened`` says of a name that it is clear, a hit, or that people must look: like a listed name, or written in letters
that cannot be compared. It errs to the side of asking.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Literal

Finding = Literal["clear", "ask", "hit"]

PART_CHARS_MIN = 6
LIKENESS_MIN = 0.85
NAME_CHARS_MAX = 200

# Letters of other scripts, and signs, beside the Latin ones that they look like (Unicode TR 39 calls them confusable).
# Capitals stand apart, since a capital and its small letter look like different Latin letters.
_PAIRS = """
АA ВB ЕE ЅS ІI ЈJ КK МM НH ОO РP СC ТT УY ХX ҮY ԌG ЗE
аa вb еe ѕs іi јj кk мm нh оo рp сc тt уy хx үy ԍg зe ԁd ԛq ԝw һh ӏl ьb ћh ђh ґr гr ѵv пn иu шw
ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX
αa βb γy εe ηn ιi κk μu νv οo ρp σo τt υu χx ωw ϲc ϳj
ԱU ՍU ՕO ՏS ոn սu օo հh եt ցg զq ɡg ɑa ıi ȷj
ᴀA ʙB ᴄC ᴅD ᴇE ғF ɢG ʜH ɪI ᴊJ ᴋK ʟL ᴍM ɴN ᴏO ᴘP ʀR ᴛT ᴜU ᴠV ᴡW ʏY ᴢZ
0o 1l 2z 3e 4a 5s 6b 7t 8b 9g @a $s €e £l !i |l ¢c øo ØO łl ŁL đd ĐD ħh ĦH ŧt ŦT
"""
_TWO = {"æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ð": "d", "Ð": "D", "þ": "th", "Þ": "TH"}
_LOOKS = str.maketrans({pair[0]: pair[1] for pair in _PAIRS.split()} | _TWO)


def skeleton(name: str) -> str:
    """What a name looks like: without marks, case, spaces and signs; like letters are one letter."""
    plain = unicodedata.normalize("NFKD", name[:NAME_CHARS_MAX])
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    letters = "".join(char for char in plain.translate(_LOOKS).casefold() if char.isalnum())
    return letters.replace("rn", "m").replace("vv", "w").replace("i", "l").replace("j", "l")


def screened(name: str, watchlist: Iterable[str]) -> Finding:
    """Whether a name may be paid without a look at it. An empty, unreadable or endless name may not."""
    mine = skeleton(name)
    if not mine or not mine.isascii() or len(name) > NAME_CHARS_MAX:
        return "ask"
    worst: Finding = "clear"
    for listed in watchlist:
        theirs = skeleton(listed)
        shorter, longer = sorted((mine, theirs), key=len)
        if mine == theirs or sorted(_words(name)) == sorted(_words(listed)):
            return "hit"
        ours, others = set(_words(name)), set(_words(listed))
        part = len(shorter) >= PART_CHARS_MIN and shorter in longer
        part |= ours <= others or others <= ours
        if part or SequenceMatcher(None, mine, theirs, autojunk=False).ratio() >= LIKENESS_MIN:
            worst = "ask"
    return worst


def _words(name: str) -> list[str]:
    return [skeleton(word) for word in name.split() if skeleton(word)]
