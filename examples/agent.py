"""An agent for `chase-and-pay`: a script in the place of a model. It also tries what it may not.

    python agent.py URL TOKEN_FILE RUN

The run is the one that the workflow's step opened. Its boundary is held by the gate, so nothing that this program does
can pay more, or others, than the step says.
"""

import sys
from pathlib import Path

import countermark

TRANSFER = "stripe.transfers.create"


def main(url: str, token_file: str, run: str) -> None:
    with countermark.Client(url, Path(token_file).read_text().strip()) as gate:
        boundary = gate.show_run(run)["boundary"]
        print(f"the agent's goal: {boundary['goal']}")
        due, later = boundary["sees"]["due"], boundary["sees"]["later"]

        def pay(call_id: str, number: str, account: str, amount: int) -> bool:
            args = {"amount": amount, "currency": "eur", "destination": account, "metadata[invoice]": number}
            result = gate.act(TRANSFER, args, run=run, call_id=call_id, reason=f"{number} is due")
            print(f"  {call_id:<12} {amount:>7} cents to {account:<24} {result.status} [{result.code}]")
            return result.status == "confirmed"

        paid = [one["number"] for one in due if pay(one["number"], one["number"], one["account"], one["amount"])]
        # What an agent might do that was talked into it. The budget is 1,000.00 EUR, the accounts are those of vendors.
        pay("own-account", "INV-901", "acct_1Ana", 900)
        pay("too-much", "INV-902", "acct_1AcmePaper", 90_000)
        refund = gate.act("stripe.refunds.create", {"amount": 100, "charge": "ch_1"}, run=run, call_id="other-tool")
        print(f"  {'other-tool':<12} a refund {'':<39} {refund.status} [{refund.code}]")
        gate.end_run(run, reason="done", outputs={"paid": paid, "chased": later})


if __name__ == "__main__":
    main(*sys.argv[1:])
