"""Which rules of a grammar no text fits, because they lead into themselves for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.serving.grammar import Alt, Count, Node, OneOf, Ref, Seq


def without_end(rules: Mapping[str, Node]) -> list[str]:
    """Names of the rules that no text of finite length fits.

    Args:
        rules: what `Ref` names.
    """
    nodes = _reachable(rules)
    fitting: set[int] = set()
    before = -1
    while before != len(fitting):
        before = len(fitting)
        for node in reversed(nodes):  # parts mostly before the wholes
            if id(node) not in fitting and _has_text(node, rules, fitting):
                fitting.add(id(node))
    return [name for name, node in rules.items() if id(node) not in fitting]


def _reachable(rules: Mapping[str, Node]) -> list[Node]:
    """Every node once, each before its parts. No recursion: a schema's properties nest as deep as there are many."""
    found: dict[int, Node] = {}
    todo = list(rules.values())
    while todo:
        node = todo.pop()
        if id(node) not in found:
            found[id(node)] = node
            todo += _parts(node, rules)
    return list(found.values())


def _parts(node: Node, rules: Mapping[str, Node]) -> Sequence[Node]:
    if isinstance(node, Seq | Alt):
        return node.parts
    if isinstance(node, Count):
        return (node.part,)
    return (rules[node.name],) if isinstance(node, Ref) else ()


def _has_text(node: Node, rules: Mapping[str, Node], fitting: set[int]) -> bool:
    if isinstance(node, OneOf):
        return bool(node.values)
    known = [id(part) in fitting for part in _parts(node, rules)]
    if isinstance(node, Count):
        return node.least == 0 or known[0]
    return any(known) if isinstance(node, Alt) else all(known)
