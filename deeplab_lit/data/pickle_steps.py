"""Look at the steps of a pickle before it is loaded: some few of them can take all time or memory.

A tuple of twice one tuple, which holds twice another one …, has 2ⁿ parts after n steps, and as a
key of a dictionary Python goes through all of them. Room is set aside for all objects before one
that is to be kept at a place.
"""

import io
import pickletools

MOST_PARTS = 200  # of a tuple, with those of the tuples in it; that of an array has some 10
MARK = 0  # on the stack, where other things have one part or more


class Refused(ValueError):
    """A pickle asks for something that is not allowed, or does not hold what it claims to."""


def check_steps(file: io.BytesIO, most_steps: int) -> None:
    """Refuse a pickle that takes much time or memory; nothing is run.

    Args:
        file: stands at the pickle, and is left behind it.
        most_steps: that it may have.

    Raises:
        Refused: it has too many steps, or builds tuples of too many parts.
        ValueError: it is none; or IndexError, KeyError.
    """
    stack: list[int] = []  # how many parts each thing there has
    kept: dict[int, int] = {}
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if step >= most_steps:
            raise Refused(f"a pickle of more than {most_steps:,} steps")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(kept) if argument is None else int(argument)
            if place > most_steps:
                raise Refused(f"a pickle that claims to keep {place:,} objects")
            kept[place] = stack[-1]
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(kept[int(argument or 0)])
        else:
            _take(opcode, stack)


def _take(opcode: pickletools.OpcodeInfo, stack: list[int]) -> None:
    """Do to the stack what a step does, and refuse it where it makes a tuple of many parts."""
    parts, below = 1, len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        below = opcode.stack_before.index(pickletools.markobject)
        while (top := stack.pop()) != MARK:
            parts += top
    taken = stack[len(stack) - below :]
    if len(taken) < below:
        raise Refused("a pickle that takes more than there is")
    del stack[len(stack) - below :]
    if opcode.name == "MARK":
        stack.append(MARK)
    elif opcode.name.startswith(("TUPLE", "FROZENSET")):
        parts += sum(taken)
        if parts > MOST_PARTS:
            raise Refused(f"a tuple of more than {MOST_PARTS} parts")
        stack.append(parts)
    else:  # what is changed in place stays what it is, others have no parts that Python looks at
        stack.extend(
            taken[:1] * len(opcode.stack_after) if taken else [1] * len(opcode.stack_after)
        )
