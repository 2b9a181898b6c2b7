"""The faults of an outcome file, with row and column; Polars checks it in a stream."""

from collections.abc import Iterator, Set
from itertools import chain

import polars as pl

from router import chat_form
from router.chat_form import ChatFormError
from router.domain import SLACK, Enforcement
from training.data.schema import FINISHES, LABEL_SOURCES, OPTIONAL, SCHEMA, THOUGHT_ENDINGS, conformed

Rule = tuple[str, pl.Expr, str]
"""A column, the condition that a broken row meets, and the fault in words."""


def faults(rows: pl.LazyFrame, soft: bool = False, unlabelled: bool = False) -> Iterator[str]:
    """Faults in words: wrong columns; else the first row that breaks each rule; else rows that contradict others.

    Args:
        soft: budgets are hints, which thoughts may exceed.
        unlabelled: labels may be missing.
    """
    wrong = list(_wrong_columns(rows.collect_schema(), OPTIONAL | set(LABEL if unlabelled else ())))
    yield from wrong
    if wrong:
        return
    rows = conformed(rows).with_row_index("row")
    if rows.select(pl.len()).collect(engine="streaming").item() == 0:
        yield "no rows"
        return
    broken = list(_broken_rules(rows, (_SOURCED if unlabelled else _LABELLED) + _RULES))
    held = () if soft else _broken_rules(rows, _HELD)
    yield from broken or chain(_conversations(rows), _falling(rows), held, _repeated(rows), _contradictions(rows))


def is_logged(rows: pl.LazyFrame) -> bool:
    """True if every row is a decision of served traffic, which has one rung a prompt, and perhaps several models."""
    return bool(conformed(rows).select(pl.col("decision_id").is_not_null().all()).collect(engine="streaming").item())


def _broken_rules(rows: pl.LazyFrame, rules: tuple[Rule, ...]) -> Iterator[str]:
    """The first row that breaks each rule, in the order of the file, with the number of such rows."""
    # One pass over the file finds the first offender of every rule; only offenders are then read again.
    offenders = rows.select(
        pl.struct(pl.col("row").filter(broken).first(), broken.sum().alias("count")).alias(str(i))
        for i, (_, broken, _) in enumerate(rules)
    ).collect(engine="streaming")
    found = [(each["row"], each["count"], *rules[int(i)]) for i, each in offenders.row(0, named=True).items()]
    for row, count, column, _, wanted in sorted(rule for rule in found if rule[0] is not None):
        value = rows.filter(pl.col("row") == row).select(column).collect(engine="streaming").item()
        yield f"row {row}, column {column}: {value!r}: {wanted}{_more(count)}"


def _more(count: int) -> str:
    return f" ({count} rows)" if count > 1 else ""


def _wrong_columns(present: pl.Schema, optional: Set[str]) -> Iterator[str]:
    for name, wanted in SCHEMA.items():
        if name not in present:
            if name not in optional:
                yield f"column {name}: is missing"
        elif not _convertible(present[name], wanted):
            yield f"column {name}: holds {present[name]}, not {wanted}"


def _convertible(given: pl.DataType, wanted: pl.DataType) -> bool:
    if given == pl.Null() or given == wanted:
        return True
    # Integers must not come from floats, which would be cut silently; other numbers convert without loss of meaning.
    if wanted.is_integer():
        return given.is_integer()
    if wanted.is_float():
        return given.is_numeric() or given == pl.Boolean()
    return type(given) in ((pl.Datetime,) if isinstance(wanted, pl.Datetime) else (pl.Categorical, pl.Enum))


def _among(column: str, allowed: tuple[str, ...]) -> tuple[str, pl.Expr, str]:
    return column, ~pl.col(column).is_in(allowed), f"is none of {', '.join(allowed)}"


_COLLECTED = pl.col("decision_id").is_null()
_ONCE = pl.col("attempts").fill_null(1) == 1
"""A second attempt, where the first gave no answer, thinks again: the row counts the tokens of both."""

_HINTED = pl.col("model").str.ends_with(f"/{Enforcement.HINT.value}")

LABEL = ("correct", "label_source")
"""Columns that are null in a row without a label."""

_LABELLED: tuple[Rule, ...] = (
    (
        "correct",
        pl.col("correct").is_null(),
        "is missing; `budget-train label` says which labels a certificate needs, and `budget-train certify` needs no "
        "others",
    ),
    ("label_source", pl.col("label_source").is_null(), "is missing"),
)
_SOURCED: tuple[Rule, ...] = (
    ("label_source", pl.col("label_source").is_null() & pl.col("correct").is_not_null(), "is missing"),
)

_RULES: tuple[Rule, ...] = (
    *((name, pl.col(name).is_null(), "is missing") for name in SCHEMA if name not in OPTIONAL and name not in LABEL),
    *((name, pl.col(name) == "", "is empty") for name in ("messages", "prompt_id", "group", "rung", "answer")),
    ("prompt", (pl.col("prompt") == "") & pl.col("messages").is_null(), "is empty"),
    ("correct", ~pl.col("correct").is_between(0, 1) | pl.col("correct").is_nan(), "does not lie in 0..1"),
    *(
        (name, pl.col(name) < 0, "is negative")
        for name in ("rung_order", "budget_tokens", "thinking_tokens", "probe_tokens")
    ),
    *(
        (name, ~(pl.col(name) <= 0), "is above 0, so it is no logarithm of a probability")
        for name in ("probe_logprob", "probe_min_logprob", "end_logprob")
    ),
    ("attempts", pl.col("attempts") < 1, "is below 1"),
    ("propensity", ~pl.col("propensity").is_between(0, 1, closed="right"), "does not lie in 0..1"),
    _among("label_source", LABEL_SOURCES),
    _among("finish", FINISHES),
    _among("thinking_ended", THOUGHT_ENDINGS),
)

_MOST = pl.col("budget_tokens") + pl.max_horizontal(SLACK, pl.col("budget_tokens") / 100)
"""Thinking tokens that still count as held: tokenizers differ, and some tools count the marker or the closing cue."""

_HELD: tuple[Rule, ...] = (
    (
        "thinking_tokens",
        _COLLECTED & _ONCE & ~_HINTED & (pl.col("thinking_tokens") > _MOST),
        "is above the row's budget_tokens, so the budget was not held; where budgets are a provider's hints, "
        f"give --soft-budgets, or a model that ends in /{Enforcement.HINT.value}",
    ),
)


def _conversations(rows: pl.LazyFrame) -> Iterator[str]:
    """The first row of each conversation that cannot be read, or whose last user message is not the prompt."""
    asked = rows.filter(pl.col("messages").is_not_null())
    firsts = asked.group_by("prompt", "messages").agg(pl.col("row").min(), pl.len()).sort("row")
    wrong = [
        (row, count, why)
        for text, messages, row, count in firsts.collect(engine="streaming").iter_rows()
        if (why := _wrong_conversation(text, messages))
    ]
    for row, count, why in wrong[:1]:
        yield f"row {row}, column {why}{_more(count + sum(other for _, other, _ in wrong[1:]))}"


def _wrong_conversation(text: str, messages: str) -> str:
    try:
        asked = chat_form.from_json(messages).text
    except ChatFormError as error:
        return str(error)
    return "" if asked == text else f"prompt: {text[:40]!r}: is not what the messages ask last, {asked[:40]!r}"


def _repeated(rows: pl.LazyFrame) -> Iterator[str]:
    """The first row that repeats an earlier one: the same answer counted twice makes a certificate too sure."""
    for of, key, column, wanted in _UNIQUE:
        kind = rows.filter(of).select("row", *key)
        again = kind.with_columns(first=pl.col("row").min().over(key)).filter(pl.col("row") != pl.col("first"))
        count, row, first = (
            again.sort("row").select(pl.len(), pl.col("row").first(), pl.col("first").first()).collect().row(0)
        )
        if count:
            yield f"row {row}, column {column}: repeats row {first}; {wanted}{_more(count)}"


_UNIQUE: tuple[tuple[pl.Expr, tuple[str, ...], str, str], ...] = (
    (
        _COLLECTED,
        ("prompt_id", "rung_order", "sample_id"),
        "sample_id",
        "number further answers to the same prompt at the same rung",
    ),
    (~_COLLECTED, ("decision_id",), "decision_id", "a decision has one outcome"),
)
"""Which rows, the key that no two of them may share, the column at fault, and what is right in words."""


def _contradictions(rows: pl.LazyFrame) -> Iterator[str]:
    """Rows that disagree with the first row of the same key, by `_SAME`."""
    if is_logged(rows):  # a service may have changed its model or ladder meanwhile
        return
    for key, columns, wanted in _SAME:
        kind = rows.select("row", key, *columns)
        first = kind.group_by(key).agg(pl.col(columns).sort_by("row").first().name.prefix("first "))
        differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"first {name}")) for name in columns)
        row = kind.join(first, on=key).filter(differs).select(pl.col("row").min()).collect(engine="streaming").item()
        if row is not None:
            yield f"row {row}, column {columns[0]}: {wanted}"


def _falling(rows: pl.LazyFrame) -> Iterator[str]:
    """The first row of the cheapest rung whose cap lies below that of a rung before it."""
    if is_logged(rows):
        return
    cap = pl.col("budget_tokens").fill_null(NO_CAP)
    rungs = rows.group_by("rung_order").agg(pl.col("row").min(), cap.min()).sort("rung_order")
    falls = rungs.with_columns(before=pl.col("budget_tokens").shift().cum_max())
    for row, own, before in (
        falls.filter(pl.col("budget_tokens") < pl.col("before"))
        .select("row", "budget_tokens", "before")
        .head(1)
        .collect(engine="streaming")
        .iter_rows()
    ):
        cheaper = "a rung without a cap" if before == NO_CAP else f"one of {before}"
        yield f"row {row}, column budget_tokens: {own}: comes after {cheaper}; rung_order must rise with the cap"


NO_CAP = 2**62
"""Stands for "no cap": above every cap."""

_SAME: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("rung_order", ("rung", "budget_tokens"), "the position had another rung or budget before"),
    ("rung", ("rung_order",), "the rung had another position before"),
    ("prompt_id", ("group",), "the prompt had another group before, so it would lie on both sides of a split"),
    ("prompt_id", ("prompt",), "the prompt had another text before"),
    ("prompt_id", ("messages",), "the prompt had other messages before"),
    (
        "rung",
        ("model",),
        "another model than before at this rung; a bundle is about one model, beside which another may hold a rung",
    ),
)
"""A key, columns in which rows of equal key must agree, and the fault in words."""
