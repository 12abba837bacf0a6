"""``countermark demo``: a treasury agent's day against the Stripe simulator, ungoverned and governed, and the proof.

Offline, seeded, no keys needed. The verifier sees only the pack and the trust file.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.audit import export_pack, write_pack
from countermark.authority import build_approval, generate, load_private, public_of, sign_approval
from countermark.connectors import StripeConnector
from countermark.gate import Caller
from countermark.journal import SqliteStore
from countermark.log import Frontier, LogSigner, leaf_hash, open_checkpoint
from countermark.model.errors import ConfigError, CountermarkError
from countermark.policy import Bundle, compile_bundle, template_files, template_people, with_keys
from countermark.twins.stripe import StripeTwin
from countermark.wiring.connectors import STRIPE_ORIGIN, drafts
from countermark.wiring.demo_day import CALLS, TOOL, Call, Rules, breaches, day, total
from countermark.wiring.demo_insider import rewrite
from countermark.wiring.demo_witness import DemoWitness
from countermark.wiring.deployment import Deployment, open_deployment
from countermark.wiring.init import Made, init_deployment

SEED = 4711
AGENT = "treasury"
IN_FLIGHT = 8
VERIFY_S_MAX = 120
MARK = "countermark-demo.txt"
ANCHORED = ("anchored", "evidence-anchored.zip", "trust-anchored.json")  # what `demo anchor` adds
FOLDERS = ("deployment", "simulator", "witness", ANCHORED[0])
FILES = ("evidence.zip", "evidence-rewritten.zip", "trust.json", *ANCHORED[1:])


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo writes, and how it shows what it does."""

    root: Path
    say: Callable[[str], None]


def run_demo(root: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the story into ``root`` (new or an earlier demo's); returns its figures. Raises ``CountermarkError``."""
    stage = Stage(root, say)
    try:
        clean(root)
    except OSError as error:
        raise ConfigError(f"{root} cannot be written: {error.strerror}", code="read_only",
                          hint="Choose another directory.") from None  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="countermark-demo-") as scratch, DemoWitness(root / "witness") as witness:
        return _story(stage, Path(scratch), witness)


def clean(root: Path, folders: Sequence[str] = FOLDERS, files: Sequence[str] = FILES) -> None:
    """Remove what an earlier run left, finished or not, and nothing else; leave a mark for the next one."""
    import shutil

    earlier = (root / MARK).exists() or (root / "evidence.zip").exists()
    if root.exists() and any(root.iterdir()) and not earlier:
        raise ConfigError(f"{root} is not empty and holds no earlier demo", hint="Choose another directory.")
    root.mkdir(parents=True, exist_ok=True)
    (root / MARK).write_text("Made by `countermark demo`, which may delete what it made here.\n", "utf-8")
    for name in folders:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in files:
        (root / name).unlink(missing_ok=True)


def _story(stage: Stage, scratch: Path, witness: DemoWitness) -> dict[str, Any]:
    files = _policy()
    rules = _rules(files)
    calls = day(SEED, rules)
    money = {"balances": {"eur": 10**10}, "accounts": [*rules.accounts, *_other_accounts(calls)]}
    with StripeTwin.start(scratch / "before", seed=SEED, **money) as twin:  # type: ignore[arg-type]
        stage.say(f"1. The agent alone: {CALLS} calls straight to the payment provider (a simulator on this machine).")
        before = _ungoverned(twin, calls, files, rules)
        _table(stage, before)
    with StripeTwin.start(stage.root / "simulator", seed=SEED, **money) as twin:  # type: ignore[arg-type]
        return {"seed": SEED, "ungoverned": before, **_governed(stage, twin, calls, files, rules, witness)}


def _policy() -> dict[str, str]:
    """The vendor-payments template, with room for a day's worth of calls in a few seconds."""
    files = dict(template_files("vendor-payments"))
    for old, new in (
        ("max = 20\n", "max = 400\n"),
        ("max = 5000000\n", "max = 20000000\n"),
        ("max = 3000000\n", "max = 9000000\n"),
    ):
        if old not in files["limits.toml"]:
            raise ConfigError("the template is not the one that the demo tells about")
        files["limits.toml"] = files["limits.toml"].replace(old, new)
    return files


def _other_accounts(calls: Sequence[Call]) -> list[str]:
    return sorted({str(c.args["destination"]) for c in calls if str(c.args["destination"]).startswith("acct_1Changed")})


def _rules(files: Mapping[str, str]) -> Rules:
    """The judge's own reading of the template's numbers."""
    import tomllib

    doc = tomllib.loads(files["limits.toml"].replace("{{", "").replace("}}", ""))
    accounts = tuple(p["account"] for p in doc["payees"].values() if p["account"].startswith("acct_"))
    windows = [w["max"] for w in doc["window"] if w["of"] == "amount" and w["above"] == "refuse"]
    return Rules(accounts, doc["payment"]["max"], min(windows, default=10**12))


def _ungoverned(twin: StripeTwin, calls: Sequence[Call], files: Mapping[str, str], rules: Rules) -> dict[str, Any]:
    """The same calls with the credential in the agent's hand: what a plain SDK would send."""
    keys = {person: str(public_of(generate())) for person in template_people(files)}
    texts = with_keys({path: text.replace(STRIPE_ORIGIN, twin.url) for path, text in files.items()}, keys)
    bundle = compile_bundle(tuple(sorted(texts.items())), drafts())
    tool = bundle.compiled.tools[TOOL]
    connector = StripeConnector(lambda _: twin.key, twin.url)
    answers: Counter[str] = Counter()
    for call in calls:
        args = {name: value for name, value in call.args.items() if isinstance(value, (str, int))}
        request = connector.prepare(tool, args, secrets.token_hex(16))
        answers[connector.execute(tool, request).status] += 1
    books = twin.books().movements()
    return {"calls": len(calls), "answers": dict(answers), "moved": total(books), "breaches": breaches(books, rules)}


def _governed(
    stage: Stage, twin: StripeTwin, calls: Sequence[Call], files: Mapping[str, str], rules: Rules,
    witness: DemoWitness,
) -> dict[str, Any]:  # fmt: skip
    root = stage.root / "deployment"
    connectors = {"stripe": StripeConnector(lambda _: twin.key, twin.url)}
    made = init_deployment(root, "vendor-payments", "demo", stripe_origin=twin.url, edit=files, connectors=connectors)
    witness.begin(made.log_key)
    stage.say("")
    stage.say("2. The same day through the gate: it decides, records durably, executes once; the agent holds no key.")
    with open_deployment(root, agent=AGENT, connectors=connectors) as handle:
        run = handle.start_run(purpose="pay vendor invoices")
        heads = [_retained(handle, made, witness, "kept by the auditor in the morning")]
        half = len(calls) // 2
        answered = handle.gate.wait(_drive(handle, run, calls[:half]))
        approved = _approve_one(handle, made)
        heads.append(_retained(handle, made, witness, "kept by the auditor at noon"))
        answered += handle.gate.wait(_drive(handle, run, calls[half:]))
        waiting = handle.call("status", {})["waiting"]
        heads.append(_retained(handle, made, witness, "kept by the auditor in the evening"))
    books = twin.books().movements()
    after = {
        "calls": len(calls), "answers": dict(Counter(code for code, _ in answered)), "moved": total(books),
        "at_once": sum(amount for _, amount in answered), "signed": approved["amount"],
        "breaches": breaches(books, rules),
    }  # fmt: skip
    _table(stage, after)
    stage.say("")
    stage.say(
        f"3. At noon the {approved['person']} signed one of the escalated payments with a key of their own: "
        f"{euros(approved['amount'])} to {approved['payee']}, {approved['status']} (in the table, the second sum). "
        f"{waiting} still wait; no answer means no."
    )
    return {"governed": after, "approved": approved, "waiting": waiting, **_prove(stage, made, heads, witness)}


async def _drive(handle: Deployment, run: str, calls: Sequence[Call]) -> list[tuple[str, int]]:
    """``IN_FLIGHT`` calls at a time; each answer by its code, with the amount that was confirmed in it."""
    gate, caller = handle.gate, Caller(AGENT, "embedded")
    waiting = list(reversed(calls))
    answers: list[tuple[str, int]] = []

    async def worker() -> None:
        while waiting:
            call = waiting.pop()
            body = {"run": run, "call_id": call.call_id, "tool": TOOL, "args": dict(call.args), "reason": call.reason}
            try:
                result = await gate.act(caller, body)
                code = result.status if result.status in ("confirmed", "escalated") else result.code
                answers.append((code, call.args["amount"] if code == "confirmed" else 0))
            except CountermarkError as error:
                answers.append((error.code, 0))

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return answers


def _waiting(handle: Deployment) -> Iterator[dict[str, Any]]:
    """What waits for people, the newest first, page by page."""
    after = None
    while page := handle.call("escalations", {"after": after}):
        yield from page
        after = page[-1]["seq"]


def _approve_one(handle: Deployment, made: Made) -> dict[str, Any]:
    """The controller signs the newest waiting payment to a known payee; the rest stays waiting."""
    known = (e for e in _waiting(handle) if not e["terms"]["payee"].startswith("p:") and "part" not in e["values"])
    chosen = next(known, None)
    if chosen is None:
        raise ConfigError("nothing was escalated, so the demo has nothing to approve")
    person = next(name for name in made.people if name != "treasurer")
    ladder = min(chosen["ladders"])
    document = build_approval(chosen, deployment=chosen["deployment"], ladder=ladder, verdict="approve", person=person)
    reply = handle.call("answer", sign_approval(document, load_private(made.people[person])))
    return {
        "escalation": chosen["escalation"], "person": person, "amount": chosen["terms"]["amount"],
        "payee": chosen["terms"]["payee"], "status": reply["result"]["status"],
    }  # fmt: skip


def _retained(handle: Deployment, made: Made, witness: DemoWitness, source: str) -> dict[str, Any]:
    """What an auditor takes home: size and root of the newest signed head. The witness is shown the same head."""
    store = SqliteStore(handle.config.journal, readonly=True)
    try:
        head = store.head()
        if head is None:
            raise ConfigError("the journal has no head")
        witness.show(store, *head)
    finally:
        store.close()
    checkpoint = open_checkpoint(head[1], [made.log_key])
    return {"size": checkpoint.size, "root": base64.b64encode(checkpoint.root).decode(), "source": source}


def _prove(stage: Stage, made: Made, heads: list[dict[str, Any]], witness: DemoWitness) -> dict[str, Any]:
    """Export, verify, let the insider rewrite, verify again."""
    pack, rewritten, trust = (stage.root / n for n in ("evidence.zip", "evidence-rewritten.zip", "trust.json"))
    from countermark.wiring.config import load_config
    from countermark.wiring.log_keys import log_signer

    config = load_config(made.root)
    signer = log_signer(config)
    store = SqliteStore(config.journal, readonly=True)
    try:
        size = heads[-1]["size"]
        raws = [raw for _, raw in store.raw(0, size)]
        bundle = Bundle.from_document(json.loads(store.bundle(made.bundle) or b"{}"))
        keys = {p.id: [str(key) for key in p.keys] for p in bundle.compiled.people.values() if p.keys}
        trust.write_text(json.dumps(_trust(config.origin, signer, keys, heads, raws), indent=1) + "\n", "utf-8")
        exported = export_pack(pack, store, signer, deployment=config.deployment, lane=config.lane, at=size)
        stage.say("")
        stage.say(
            f"4. Exported {size} records as {pack.name}. An auditor verifies with the pack and {trust.name} alone:"
        )
        honest = verified(pack, trust)
        stage.say(f"   {honest['verdict'].upper()}")
        seq, old = victim(raws)
        changed = rewrite(raws, seq, old - 1_000, bundle, config.deployment)
        _export_rewritten(rewritten, changed, signer, bundle, exported.withheld)
    finally:
        store.close()
    stage.say("")
    stage.say(
        f"5. An insider owns database and signing key, changes record {seq} from {euros(old)} to "
        f"{euros(old - 1_000)}, rebuilds the chain and signs it all again:"
    )
    attacked = verified(rewritten, trust)
    stage.say(f"   {attacked['verdict'].upper()}")
    _findings(stage, attacked)
    met = _met(stage, witness.meet(signer, changed))
    return {
        "pack": str(pack), "trust": str(trust), "records": size, "honest": honest["verdict"],
        "rewritten": {"record": seq, "verdict": attacked["verdict"], "first_bad_seq": attacked["first_bad_seq"]},
        "witness": met,
    }  # fmt: skip


def _met(stage: Stage, met: dict[str, Any]) -> dict[str, Any]:
    """Tell what the witness said to the insider."""
    stage.say("")
    if not met["asked"]:
        stage.say("6. A witness would refuse this too; it needs the extra [server], which is not installed.")
        return met
    whose = "your own user" if met["user"] is None else f"another user, {met['user']}"
    stage.say(
        f"6. A witness, a process of {whose}, in a directory of its own, cosigned the log at "
        f"{', '.join(map(str, met['cosigned']))} records. The insider shows it the rewritten log:"
    )
    said = "REFUSED" if met["refused"] else "COSIGNED"
    stage.say(f"   {said}  {met['refused']}: both heads, signed with one key, are kept as {Path(met['kept'][-1]).name}"
              if met["kept"] else f"   {said}")  # fmt: skip
    stage.say("   This witness is the demo's own, so its word counts for no auditor: the trust file does not name it, "
              "and the verifier skips V08.\n   An auditor names witnesses that others run.")  # fmt: skip
    return met


def _trust(
    origin: str, signer: LogSigner, people: Mapping[str, list[str]], heads: list[dict[str, Any]], raws: Sequence[bytes]
) -> dict[str, Any]:
    return {
        "v": 1, "log": {"origin": origin, "keys": [signer.vkey]}, "people": dict(people), "heads": heads,
        "leaf_hashes": {"from": 0, "hashes": [leaf_hash(raw).hex() for raw in raws]},
    }  # fmt: skip


def victim(raws: Sequence[bytes]) -> tuple[int, int]:
    """Seq and amount of the largest payment that no person looked at, so the one that is easiest to change."""
    found = []
    for seq, raw in enumerate(raws):
        doc = json.loads(raw)
        body = doc["body"]
        if doc["kind"] == "action.decided" and body["disposition"] == "allow" and body["escalation"] is None:
            found.append((body["terms"]["amount"], seq))
    amount, seq = max(found)
    return seq, amount


def _findings(stage: Stage, report: Mapping[str, Any]) -> None:
    """The first finding of every step that refuted (of V07 two), with what was expected and what was there."""
    for step in report["steps"]:
        shown = step["findings"][: 2 if step["step"] == "V07" else 1]
        more = len(step["findings"]) - len(shown)
        for finding in shown:
            end = f"  (and {more} more)" if more and finding is shown[-1] else ""
            stage.say(f"   {finding['code']}  {finding['message']}{end}")
            if finding["expected"] is not None:
                stage.say(f"       expected {finding['expected']}")
                stage.say(f"       actual   {finding['actual']}")


def _export_rewritten(path: Path, raws: Sequence[bytes], signer: LogSigner, bundle: Bundle, withheld: int) -> None:
    _, deployment, lane = signer.name.split("/")
    frontier = Frontier()
    for raw in raws:
        frontier.append(leaf_hash(raw))
    write_pack(
        path, deployment=deployment, lane=lane, records=raws,
        checkpoint=signer.sign_checkpoint(len(raws), frontier.root()), signer=signer,
        bundles={bundle.digest: bundle.raw}, disclosures={"v": 1, "fields": [], "requests": []},
        withheld=withheld, erased=0,
    )  # fmt: skip


def verified(pack: Path, trust: Path) -> dict[str, Any]:
    """The verifier as a stranger runs it: another process, pack and trust file only."""
    done = subprocess.run(
        [sys.executable, "-m", "countermark_verify", str(pack), "--trust", str(trust), "--json"],
        capture_output=True, timeout=VERIFY_S_MAX, check=False,
    )  # fmt: skip
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise ConfigError(f"the verifier did not answer: {done.stderr.decode(errors='replace')[-300:]}") from None
    return report


def euros(minor: int) -> str:
    return f"{minor // 100:,}.{minor % 100:02d} EUR"


def _table(stage: Stage, figures: Mapping[str, Any]) -> None:
    answers = ", ".join(f"{count} {code}" for code, count in sorted(figures["answers"].items(), key=lambda i: -i[1]))
    stage.say(f"   answers: {answers}")
    if "at_once" in figures:
        confirmed = figures["answers"]["confirmed"]
        stage.say(f"            {euros(figures['at_once']):>18}  the {confirmed} confirmed at once")
        stage.say(f"            {euros(figures['signed']):>18}  1 of the escalated, signed and paid at noon (see 3)")
        stage.say(f"   moved:   {euros(figures['moved']):>18}  in all, by the provider's books in the evening")
    else:
        stage.say(f"   moved:   {euros(figures['moved']):>18}  by the provider's books")
    for name, count in figures["breaches"].items():
        stage.say(f"   {name + ':':<26}{count:>5}")
