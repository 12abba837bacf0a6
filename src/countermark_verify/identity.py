"""V12: action IDs, action digests, provider keys, obligations, terms, requests and disclosures."""

import re
import unicodedata
from typing import Any

from countermark_verify import arguments, canon, onchain, sealed
from countermark_verify.bundle import Bundle
from countermark_verify.disclosures import Disclosures
from countermark_verify.errors import Malformed
from countermark_verify.report import Ledger
from countermark_verify.request import as_text, fits_path, request_digest
from countermark_verify.state import IDENTIFIED, State

# The claimed reason of an action is sealed like a field, under this alias.
REASON_ALIAS = "$reason"
# Classes of arguments that become terms.
_DECIDING = ("amount", "currency", "payee")
_PSEUDONYM = re.compile(r"p:[0-9a-f]{32}")


class Identity:
    """Derives every identifier of a decided action again."""

    def __init__(self, ledger: Ledger, state: State, disclosures: Disclosures) -> None:
        self._ledger = ledger
        self._state = state
        self._disclosures = disclosures
        self._fields_left = set(disclosures.fields)
        self._salts_left = set(disclosures.salts)
        # One pseudonym for each value, and one value for each pseudonym.
        self._named_of: dict[str, str] = {}
        self._value_of: dict[str, str] = {}
        self._pseudonyms: dict[str, str] = {}
        self._accounts: dict[str, str] = {}
        # One business key for each sealed value that is disclosed, and the other way round.
        self._obligation_of: dict[tuple[Any, ...], str] = {}
        self._disclosed_by: dict[str, tuple[Any, ...]] = {}
        self.sealed = 0
        # Sealed values that decide and are not disclosed, by subject: what is erased later is counted by V19.
        self._withheld: dict[str, int] = {}

    def check(self, position: int, record: dict[str, Any]) -> None:
        if record["kind"] == "payee.changed":
            self._changed(position, record["body"])
        if sealed.subject_of(record) is not None:
            self._of_run(position, *sealed.hidden(record["body"]))
        if record["kind"] == "action.decided":
            body = record["body"]
            self._ledger.ran("V12", 1)
            known = bool(self._state.aside & IDENTIFIED)  # and nothing of it is sealed
            opened = body["args"] if known else self._open(position, body)
            if not known:
                self._names(position, body)
            self._named(position, body, opened)
            bundle = self._bundle(body)
            tool = bundle.tools.get(body["tool"]) if bundle else None
            if tool is not None and bundle is not None:
                if not known:
                    self._arguments(position, body, tool, opened)
                self._terms(position, body, tool, bundle, opened)
                if not known:
                    self._obligation(position, body, tool, opened)
                    self._request(position, body, tool, opened)

    def _of_run(self, seq: int, alias: str, digest: str) -> None:
        """The value of a sealed run."""
        self._ledger.ran("V12", 1)
        self.sealed += 1
        if self._disclosed(seq, alias, digest) and sealed.misfit(alias, self._disclosures.fields[seq, alias][1]):
            self._ledger.refute("V12.disclosure", f"the disclosed {alias} is no such value", seq)

    def derive(self, seq: int, body: dict[str, Any], tool: dict[str, Any], opened: dict[str, Any]) -> None:
        """All that follows from the decision and its tool alone."""
        self._names(seq, body)
        self._arguments(seq, body, tool, opened)
        self._obligation(seq, body, tool, opened)
        self._request(seq, body, tool, opened)

    def _bundle(self, body: dict[str, Any]) -> Bundle | None:
        """The bundle by which a decision's arguments and terms were read: after an approval, the escalation's."""
        escalation = self._state.escalations.get(body["escalation"] or "")
        if escalation is None:
            return self._state.bundle
        return self._state.bundles.get(escalation.body["bundle"])

    def erased(self, subject: str) -> None:
        """A record says that the subject's values are gone: nobody can disclose them."""
        self._withheld.pop(subject, None)

    def finish(self) -> None:
        if withheld := sum(self._withheld.values()):
            message = (
                f"{withheld} sealed values that decide (payee, amount or business key) are not disclosed: "
                "that the terms say what was sealed cannot be established"
            )
            self._ledger.lack("V12.withheld", message, None, 0, withheld)
        for seq, alias in sorted(self._fields_left)[:100]:
            self._ledger.refute("V12.disclosure", f"opens {alias}, which is no sealed value of this record", seq)
        for seq in sorted(self._salts_left)[:100]:
            self._ledger.refute("V12.disclosure", "opens the salt of a request that is not sealed", seq)

    def _open(self, seq: int, body: dict[str, Any]) -> dict[str, Any]:
        """The arguments by alias, with sealed ones opened where the pack discloses them; those left are absent."""
        values = {}
        for alias, value in body["args"].items():
            if type(value) is not dict:
                values[alias] = value
                continue
            self.sealed += 1
            if self._disclosed(seq, alias, value["$sd"]):
                values[alias] = self._disclosures.fields[seq, alias][1]
        reason = body["claimed"]["reason"]
        if reason is not None:
            self.sealed += 1
            self._disclosed(seq, REASON_ALIAS, reason["$sd"])
        if body["salt"] is None:
            self._salts_left.discard(seq)
        return values

    def _disclosed(self, seq: int, alias: str, digest: str) -> bool:
        if (actual := self._disclosures.digest(seq, alias)) is None:
            return False
        self._fields_left.discard((seq, alias))
        if actual != digest:
            self._ledger.refute("V12.disclosure", f"the disclosed {alias} is not the sealed one", seq, digest, actual)
            return False
        return True

    def _names(self, seq: int, body: dict[str, Any]) -> None:
        refute = self._ledger.refute
        call = {name: body[name] for name in ("run", "call_id", "tool", "args")}
        identity = canon.digest("action-id", canon.render([body["agent"], body["run"], body["call_id"]]))
        action = canon.digest("action", canon.render(call))
        key = canon.digest(
            "provider-key",
            canon.render([self._state.deployment, body["agent"], body["run"], body["call_id"], body["action"]]),
        )
        for name, code, expected in (
            ("id", "V12.action", "act_" + _hex(identity)[:32]),
            ("action", "V12.action", action),
            ("key", "V12.key", "cm_" + _hex(key)[:48]),
        ):
            if body[name] != expected:
                refute(code, f"another {name} than the action has", seq, expected, body[name])

    def _arguments(self, seq: int, body: dict[str, Any], tool: dict[str, Any], opened: dict[str, Any]) -> None:
        """Every required argument, no unknown one, the sensitive ones sealed, and values that fit their declaration."""
        declared = {item["alias"]: item for item in tool["args"]}
        deciding = {item["alias"] for item in tool["args"] if item["class"] in _DECIDING}.union(tool["once_per"])
        payee = body["terms"]["payee"]
        subject = payee if payee is not None else f"agent:{body['agent']}"
        closed = sum(alias in deciding and alias not in opened for alias in body["args"])
        if closed:
            self._withheld[subject] = self._withheld.get(subject, 0) + closed
        for alias, item in declared.items():
            if alias not in body["args"]:
                if item["required"]:
                    self._ledger.refute("V12.action", f"the required argument {alias} is missing", seq)
            elif (type(body["args"][alias]) is dict) != item["sensitive"]:
                self._ledger.refute("V12.action", f"{alias} is sealed, or clear, against its declaration", seq)
            elif alias in opened and (misfit := arguments.misfit(item, opened[alias])):
                self._ledger.refute("V12.action", f"{alias} {misfit}", seq)
            elif alias in opened and not arguments.matches(item, opened[alias]):
                self._ledger.lack("V12.action", f"the pattern of {alias} is too costly to evaluate", seq)
        for alias in sorted(body["args"].keys() - declared.keys()):
            self._ledger.refute("V12.action", f"{alias} is no argument of the tool", seq)
        for name in tool["once_per"]:
            if type(value := opened.get(name)) is str and not arguments.nameable(value):
                self._ledger.refute("V12.obligation", f"{name} is no text that a business key may hold", seq)

    def _terms(
        self, seq: int, body: dict[str, Any], tool: dict[str, Any], bundle: Bundle, opened: dict[str, Any]
    ) -> None:
        terms = body["terms"]
        if tool["class"] == "money" and (terms["amount"] is None or terms["currency"] not in bundle.currencies):
            self._ledger.refute("V12.terms", "no amount in a currency of the bundle", seq, None, terms)
        by_class = {item["class"]: item["alias"] for item in tool["args"]}
        declared = {item["alias"]: item for item in tool["args"]}
        for name in ("amount", "currency", "payee"):
            alias = by_class.get(name)
            if alias is None or alias not in body["args"]:
                expected = (tool["currency"] or None) if name == "currency" else None
            elif name == "payee":
                self._payee(seq, body, opened.get(alias))
                continue
            elif alias not in opened:
                continue  # sealed: what it stands for cannot be established
            else:
                expected = opened[alias]
                if name == "amount" and "unit" in declared[alias]:
                    expected = onchain.counted(declared[alias], expected)
                elif name == "amount" and type(expected) is str and re.fullmatch(r"[0-9]{1,18}", expected, re.ASCII):
                    expected = int(expected)
            if terms[name] != expected:
                self._ledger.refute("V12.terms", f"another {name} than the arguments say", seq, expected, terms[name])

    def _payee(self, seq: int, body: dict[str, Any], value: Any) -> None:
        """Who has this account, else a pseudonym: one for each account. After an approval, who people were asked about.

        `value` is None when the argument is sealed: then only the form of the payee can be checked.
        """
        payee, register = body["terms"]["payee"], self._state.register
        escalation = self._state.escalations.get(body["escalation"] or "")
        if escalation is not None:
            if payee != (asked := escalation.body["terms"]["payee"]):
                self._ledger.refute("V12.terms", "another payee than people were asked about", seq, asked, payee)
            return
        pseudonym = payee if payee is not None and _PSEUDONYM.fullmatch(payee) else None
        if value is None:
            if payee not in register.payees and pseudonym is None:
                self._ledger.refute("V12.terms", "a sealed payee is neither known nor a pseudonym", seq, None, payee)
            return
        account = as_text(value)
        ids = register.having(account)
        if ids or pseudonym is None:
            if payee not in ids:
                expected = min(ids, default="a pseudonym")
                self._ledger.refute("V12.terms", "another payee than the arguments say", seq, expected, payee)
            return
        self._pseudonymous(seq, account, pseudonym)

    def _pseudonymous(self, seq: int, account: str, pseudonym: str) -> None:
        known = self._pseudonyms.setdefault(account, pseudonym)
        if known != pseudonym or self._accounts.setdefault(pseudonym, account) != account:
            self._ledger.refute("V12.terms", "the pseudonym of another payee", seq, known, pseudonym)

    def _changed(self, seq: int, body: dict[str, Any]) -> None:
        """An order about a payee names the account that was and the one that is, by their pseudonyms too."""
        order = body["details"]
        before = order["previous"]["account"] if order["previous"] is not None else ""
        for name, account in (("was", before), ("now", order["account"])):
            if (body[name] is None) != (account == ""):
                self._ledger.refute("V12.terms", f"no pseudonym, or one of no account, as {name}", seq)
            elif account:
                self._pseudonymous(seq, account, body[name])

    def _named(self, seq: int, body: dict[str, Any], opened: dict[str, Any]) -> None:
        """Pseudonyms of arguments: their key stays in the deployment, so that only consistency can be checked."""
        named = body["named"]
        mandate = self._state.mandates.get(body["mandates"][0]) if body["mandates"] else None
        if mandate is None:
            return
        some = bool(mandate.document["named"])
        least = {alias for alias, value in opened.items() if type(value) is not bool} if some else set()
        most = {alias for alias in body["args"] if type(opened.get(alias)) is not bool} if some else set()
        if not least <= named.keys() <= most:
            self._ledger.refute(
                "V12.named", "not the arguments that have a pseudonym", seq, sorted(least), sorted(named)
            )
        for alias, pseudonym in named.items():
            if alias in opened:
                value = normal(opened[alias])
                known = self._named_of.setdefault(value, pseudonym)
                if known != pseudonym or self._value_of.setdefault(pseudonym, value) != value:
                    self._ledger.refute(
                        "V12.named", f"{alias} has the pseudonym of another value", seq, known, pseudonym
                    )

    def _obligation(self, seq: int, body: dict[str, Any], tool: dict[str, Any], opened: dict[str, Any]) -> None:
        names = tool["once_per"]
        if not names:
            if body["obligation"] is not None:
                self._ledger.refute("V12.obligation", "this tool has no business key", seq, None, body["obligation"])
            return
        pairs, sealed, known = [], [], True
        for name in sorted(names):
            value = body["args"].get(name)
            if name == "payee":
                pairs.append([name, body["terms"]["payee"] or ""])
                continue
            if type(value) is dict:
                sealed.append(name)
                known = known and name in opened
                value = opened.get(name)
            pairs.append([name, normal(value)])
        if sealed:
            if known or body["obligation"] is None:
                self._sealed_obligation(seq, body["obligation"], (tool["once_scope"], *sealed, *map(tuple, pairs)))
            return
        expected = canon.digest("obligation", canon.render([tool["once_scope"], pairs]))
        if body["obligation"] != expected:
            self._ledger.refute("V12.obligation", "another business key", seq, expected, body["obligation"])

    def _sealed_obligation(self, seq: int, obligation: str | None, disclosed: tuple[Any, ...]) -> None:
        """The key holds a pseudonym of the sealed value, whose own key stays in the deployment: one for each value."""
        if obligation is None:
            self._ledger.refute("V12.obligation", "the business key is missing", seq)
            return
        known = self._obligation_of.setdefault(disclosed, obligation)
        if known != obligation or self._disclosed_by.setdefault(obligation, disclosed) != disclosed:
            self._ledger.refute("V12.obligation", "the business key of another value", seq, known, obligation)

    def _request(self, seq: int, body: dict[str, Any], tool: dict[str, Any], opened: dict[str, Any]) -> None:
        sealed = any(type(value) is dict for value in body["args"].values())
        if (body["salt"] is None) != sealed:
            message = "the request's salt stands clear exactly when no argument is sealed"
            self._ledger.refute("V12.request", message, seq, None, body["salt"])
        salt = body["salt"] or self._disclosures.salts.get(seq)
        if salt is None or len(opened) != len(body["args"]):
            return
        by_alias = {item["alias"]: item["name"] for item in tool["args"]}
        if unknown := sorted(set(opened) - set(by_alias)):
            self._ledger.refute("V12.request", "an argument that the tool does not have", seq, None, unknown[0])
            return
        named = {by_alias[alias]: value for alias, value in opened.items()}
        if crooked := [value for alias, value in opened.items() if not fits_path(tool, alias, value)]:
            self._ledger.refute(
                "V12.request", "a value that cannot stand in the request's path", seq, None, as_text(crooked[0])
            )
            return
        try:
            expected = request_digest(tool, named, body["key"], salt)
        except Malformed as error:
            self._ledger.refute("V12.request", f"the request {error}", seq)
            return
        if body["request"] != expected:
            self._ledger.refute(
                "V12.request", "another request than the arguments make", seq, expected, body["request"]
            )


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def normal(value: Any) -> str:
    if value is None:
        return ""
    return "".join(unicodedata.normalize("NFKC", as_text(value)).casefold().split())
