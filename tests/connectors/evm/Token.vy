# pragma version ~=0.4.3
# A token for tests: EIP-20 as far as the connector uses it, and the ways in which real tokens keep less than they say.
# `keep` is what it keeps of a hundred base units moved; `mood` 1 says false and moves nothing, 2 moves and says nothing.

event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    value: uint256

event Approval:
    owner: indexed(address)
    spender: indexed(address)
    value: uint256

balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
keep: public(uint256)
mood: public(uint256)

@deploy
def __init__(supply: uint256):
    self.balanceOf[msg.sender] = supply
    log Transfer(sender=empty(address), receiver=msg.sender, value=supply)

@external
def behave(keep: uint256, mood: uint256):
    self.keep = keep
    self.mood = mood

@external
def transfer(to: address, amount: uint256) -> bool:
    if self.mood == 1:
        return False
    self._move(msg.sender, to, amount)
    return True

@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    log Approval(owner=msg.sender, spender=spender, value=amount)
    return True

@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    self.allowance[owner][msg.sender] -= amount
    self._move(owner, to, amount)
    return True

@internal
def _move(owner: address, to: address, amount: uint256):
    kept: uint256 = amount * self.keep // 100
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount - kept
    if self.mood != 2:
        log Transfer(sender=owner, receiver=to, value=amount - kept)
