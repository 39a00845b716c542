"""Grammars over bytes, run as an automaton that is built while it is walked; and which tokens may come next in one.

A state is a set of stacks, a stack is what is still to come. Nothing here knows JSON, tokenizers or torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DEAD = -1
"""No text goes on from here."""
_EMPTY = 0


@dataclass(frozen=True, slots=True)
class Text:
    """These bytes."""

    value: bytes


@dataclass(frozen=True, slots=True)
class OneOf:
    """One byte out of a set."""

    values: frozenset[int]


@dataclass(frozen=True, slots=True)
class Seq:
    """One after another."""

    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    """Any of them."""

    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Count:
    """At least `least` times, at most `most` times; None: as often as one likes."""

    part: Any
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Ref:
    """A rule by name: what makes nesting possible."""

    name: str


Node = Text | OneOf | Seq | Alt | Count | Ref


def seq(*parts: Node | bytes) -> Node:
    """One after another; bytes stand for themselves."""
    return Seq(tuple(Text(part) if isinstance(part, bytes) else part for part in parts))


def alt(*parts: Node | bytes) -> Node:
    """Any of them; bytes stand for themselves."""
    return Alt(tuple(Text(part) if isinstance(part, bytes) else part for part in parts))


def one_of(values: bytes) -> OneOf:
    """One of these bytes."""
    return OneOf(frozenset(values))


@dataclass(slots=True)
class Automaton:
    """Walks a grammar byte by byte; states are numbers, found again when the same text may follow.

    Args:
        start: what the whole text is.
        rules: what `Ref` names.
    """

    start: Node
    rules: Mapping[str, Node] = field(default_factory=dict)
    _stacks: list[tuple[Node, int] | None] = field(default_factory=lambda: [None])
    _stack_ids: dict[tuple[int, int], int] = field(default_factory=dict)
    _nodes: dict[int, Node] = field(default_factory=dict)
    _counts: dict[tuple[int, int, int | None], Count] = field(default_factory=dict)
    _heads: dict[int, tuple[tuple[frozenset[int], int], ...]] = field(default_factory=dict)
    _ending: dict[int, bool] = field(default_factory=dict)
    _states: list[frozenset[int]] = field(default_factory=list)
    _state_ids: dict[frozenset[int], int] = field(default_factory=dict)
    _moves: dict[tuple[int, int], int] = field(default_factory=dict)

    def first(self) -> int:
        """The state before any text."""
        return self.at(self.start)

    def at(self, node: Node) -> int:
        """The state before what a node stands for."""
        return self._state(frozenset({self._push(node, _EMPTY)}))

    def move(self, state: int, byte: int) -> int:
        """The state after one more byte, or DEAD."""
        key = (state, byte)
        found = self._moves.get(key)
        if found is None:
            reached = frozenset(
                after for stack in self._states[state] for values, after in self._open(stack) if byte in values
            )
            found = self._moves[key] = self._state(reached) if reached else DEAD
        return found

    def move_all(self, state: int, text: bytes) -> int:
        """The state after some bytes, or DEAD."""
        for byte in text:
            if state == DEAD:
                return DEAD
            state = self.move(state, byte)
        return state

    def may_end(self, state: int) -> bool:
        """Whether the text may be over here."""
        for stack in self._states[state]:
            self._open(stack)
        return any(self._ending[stack] for stack in self._states[state])

    def _state(self, stacks: frozenset[int]) -> int:
        if stacks not in self._state_ids:
            self._state_ids[stacks] = len(self._states)
            self._states.append(stacks)
        return self._state_ids[stacks]

    def _push(self, node: Node, rest: int) -> int:
        """The number of the stack with `node` on top of `rest`."""
        self._nodes[id(node)] = node  # kept alive, so that the id stays its own
        key = (id(node), rest)
        if key not in self._stack_ids:
            self._stack_ids[key] = len(self._stacks)
            self._stacks.append((node, rest))
        return self._stack_ids[key]

    def _open(self, stack: int) -> tuple[tuple[frozenset[int], int], ...]:
        """What a stack may begin with: (bytes, the stack behind them)."""
        found = self._heads.get(stack)
        if found is None:
            heads: list[tuple[frozenset[int], int]] = []
            self._ending[stack] = self._unfold(stack, heads)
            found = self._heads[stack] = tuple(heads)
        return found

    def _unfold(self, stack: int, heads: list[tuple[frozenset[int], int]]) -> bool:
        """Adds the beginnings of a stack to `heads`; returns whether it may be empty."""
        may_end = False
        seen, todo = {stack}, [stack]
        while todo:
            top = self._stacks[todo.pop()]
            if top is None:
                may_end = True
                continue
            node, rest = top
            if isinstance(node, OneOf):
                heads.append((node.values, rest))
            elif isinstance(node, Text) and node.value:
                behind = self._push(self._tail(node), rest) if len(node.value) > 1 else rest
                heads.append((frozenset(node.value[:1]), behind))
            else:
                below = [one for one in self._below(node, rest) if one not in seen]  # a part may be empty itself
                seen.update(below)
                todo += below
        return may_end

    def _tail(self, node: Text) -> Text:
        key = -id(node)
        if key not in self._nodes:
            self._nodes[key] = Text(node.value[1:])
        tail = self._nodes[key]
        assert isinstance(tail, Text)
        return tail

    def _one_less(self, node: Count) -> Count:
        """What is left of a repetition after one more; the same object for the same, so that states are found again."""
        least = max(0, node.least - 1)
        most = None if node.most is None else node.most - 1
        if (least, most) == (node.least, node.most):
            return node
        key = (id(node.part), least, most)
        if key not in self._counts:
            self._counts[key] = Count(node.part, least, most)
        return self._counts[key]

    def room(self, state: int, part: Node) -> float | None:
        """How often `part` may come next, where repetitions of it are under way; None where other things may come.

        Where it may come without end, other things may, too.
        """
        tops = [self._stacks[stack] for stack in self._states[state]]
        nodes = [top[0] if top else None for top in tops]
        found = [node.most for node in nodes if isinstance(node, Count) and node.part is part]
        if None in found:
            return math.inf
        return max((most for most in found if most is not None), default=0) if len(found) == len(nodes) else None

    def _below(self, node: Node, rest: int) -> Iterator[int]:
        """The stacks that a node without bytes of its own stands for."""
        if isinstance(node, Seq):
            for part in reversed(node.parts):
                rest = self._push(part, rest)
            yield rest
        elif isinstance(node, Alt):
            for part in node.parts:
                yield self._push(part, rest)
        elif isinstance(node, Count):
            if not node.least:
                yield rest
            if node.most != 0:
                yield self._push(node.part, self._push(self._one_less(node), rest))
        elif isinstance(node, Ref):
            yield self._push(self.rules[node.name], rest)
        else:
            yield rest  # empty text


class TokenTrie:
    """Tokens by their bytes, so that one walk finds all that fit.

    Args:
        tokens: (id, bytes), bytes not empty.
    """

    def __init__(self, tokens: Sequence[tuple[int, bytes]]) -> None:
        self._root: dict[int, Any] = {}
        for token_id, text in tokens:
            node = self._root
            for byte in text:
                node = node.setdefault(byte, {})
            node.setdefault(DEAD, []).append(token_id)

    def fitting(self, automaton: Automaton, state: int) -> list[int]:
        """Ids of the tokens whose bytes may follow in `state`."""
        found: list[int] = []
        todo = [(self._root, state)]
        while todo:
            node, here = todo.pop()
            for byte, child in node.items():
                if byte == DEAD:
                    found += child
                    continue
                after = automaton.move(here, byte)
                if after != DEAD:
                    todo.append((child, after))
        return found

    def stopped(self, automaton: Automaton, state: int, is_idle: Callable[[int], bool]) -> list[int]:
        """Ids of the tokens whose bytes may not follow in `state`.

        Args:
            automaton: the grammar.
            state: where the tokens would follow.
            is_idle: whether a state is one that no longer matters: tokens that lead through one are left out.
        """
        found: list[int] = []
        todo = [(self._root, state)]
        while todo:
            node, here = todo.pop()
            for byte, child in node.items():
                if byte == DEAD:
                    continue
                after = automaton.move(here, byte)
                if after == DEAD:
                    found += _all_below(child)
                elif not is_idle(after):
                    todo.append((child, after))
        return found


def _all_below(node: dict[int, Any]) -> list[int]:
    found, todo = [], [node]
    while todo:
        for key, value in todo.pop().items():
            if key == DEAD:
                found += value
            else:
                todo.append(value)
    return found
