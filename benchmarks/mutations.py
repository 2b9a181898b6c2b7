"""The changes that make a mutant: operators of cosmic-ray, and three more that follow its interface.

Texts stay as they are: most are messages, whose wording is no behaviour that a test should pin.
"""

import ast
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.operators.provider import OperatorProvider
from parso.python.tree import ReturnStmt

Node = Any  # of parso, whose types do not say which nodes have children
Position = tuple[int, int]
Span = tuple[Position, Position]

COMPARISONS = (
    "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt",
    "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is",
)  # fmt: skip
AUGMENTED = {"+=": "-=", "-=": "+="}
ARITHMETIC = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul")
OTHERS = (
    "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub", "ReplaceAndWithOr", "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak",
    "NumberReplacer",
)  # fmt: skip


class ReplaceMembership(Operator):
    """`in` becomes `not in`, and the reverse."""

    def mutation_positions(self, node: Node) -> Iterator[Span]:
        if node.type == "comparison":
            yield from ((child.start_pos, child.end_pos) for child in self._operators(node))

    def mutate(self, node: Node, index: int) -> Node:
        chosen = self._operators(node)[index]
        swapped = parso.parse(" in" if "not" in chosen.get_code() else " not in")
        node.children[node.children.index(chosen)] = swapped
        return node

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return Example("x in y", "x not in y"), Example("x not in y", "x in y")

    @staticmethod
    def _operators(node: Node) -> list[Node]:
        return [child for child in node.children[1::2] if child.get_code().split() in (["in"], ["not", "in"])]


class ReplaceAugmented(Operator):
    """`+=` becomes `-=`, and the reverse."""

    def mutation_positions(self, node: Node) -> Iterator[Span]:
        if node.type == "operator" and node.value in AUGMENTED:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Node, index: int) -> Node:
        node.value = AUGMENTED[node.value]
        return node

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return Example("x += 1", "x -= 1"), Example("x -= 1", "x += 1")


class ReturnNone(Operator):
    """`return value` becomes `return None`."""

    def mutation_positions(self, node: Node) -> Iterator[Span]:
        if isinstance(node, ReturnStmt) and node.children[1].get_code().strip() != "None":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Node, index: int) -> Node:
        node.children[1] = parso.parse(" None")
        return node

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example("def f():\n    return 1", "def f():\n    return None"),)


_CORE = OperatorProvider()
OPERATORS: tuple[Operator, ...] = (
    *(_CORE[f"ReplaceComparisonOperator_{name}"]() for name in COMPARISONS),
    *(_CORE[f"ReplaceBinaryOperator_{name}"]() for name in ARITHMETIC),
    *(_CORE[name]() for name in OTHERS),
    ReplaceMembership(), ReplaceAugmented(), ReturnNone(),
)  # fmt: skip


def mutations(source: str, seed: int) -> Iterator[tuple[int, str]]:
    """Changes of a module in a random order of that seed: (line, the whole mutated source).

    The order rests on the text of each line, so that it stays as it is where other lines come, go or move.
    Declarations are left alone, and what does not compile is left out: any test would kill it.
    """
    lines, untouchable = source.splitlines(), list(_declarations(source))
    spots: list[tuple[bytes, Operator, int, int]] = []
    tree = get_ast(source)
    for operator in OPERATORS:
        seen: dict[str, int] = {}
        positions = [position for node in ast_nodes(tree) for position in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(positions):
            text = lines[start[0] - 1].strip()
            seen[text] = seen.get(text, 0) + 1
            if not any(first <= start < last for first, last in untouchable):
                key = sha256(f"{seed} {type(operator).__name__} {text} {seen[text]}".encode()).digest()
                spots.append((key, operator, occurrence, start[0]))
    for _, operator, occurrence, line in sorted(spots, key=lambda spot: spot[0]):
        mutated = mutate_code(source, operator, occurrence)
        if _compiles(mutated):
            yield line, mutated


def _declarations(source: str) -> Iterator[Span]:
    """Annotations, decorators, and `strict` of `zip`: they guard against bugs, and are no behaviour themselves."""
    for node in ast.walk(ast.parse(source)):
        guards = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        guards += getattr(node, "decorator_list", [])
        if isinstance(node, ast.keyword) and node.arg == "strict":
            guards.append(node.value)
        for guard in filter(None, guards):
            yield (guard.lineno, guard.col_offset), (guard.end_lineno, guard.end_col_offset)


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True
