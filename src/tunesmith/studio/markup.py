"""Small pieces of HTML for the tabs: the only place where text out of data and models meets markup, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib import resources

_STYLE = "tabs.css"
_CLIPPED = 1200
_TABLE_COLUMNS = 2
"""Tables of more become cards on a narrow screen."""


class Html(str):
    """Markup that was made here; everything else is text."""

    __slots__ = ()


def text_of(value: object) -> Html:
    """A value as it is read: markup stays, text is escaped."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def joined(parts: Iterable[object]) -> Html:
    """One behind the other."""
    return Html("".join(text_of(part) for part in parts))


def tag(name: str, *inside: object, kind: str = "", **attributes: str) -> Html:
    """An element.

    Args:
        name: such as `p`.
        *inside: text or markup.
        kind: CSS classes.
        **attributes: others; their values are escaped.
    """
    given = ({"class": kind} if kind else {}) | attributes
    said = "".join(f' {key}="{html.escape(value, quote=True)}"' for key, value in given.items())
    return Html(f"<{name}{said}>{joined(inside)}</{name}>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers_from: int | None = None) -> Html:
    """A table; with more than two columns every row becomes a card on a narrow screen, with the heads beside its cells.

    Args:
        head: of the columns.
        rows: of cells.
        numbers_from: columns from here on are numbers.
    """
    first = len(head) if numbers_from is None else numbers_from
    kinds = ["number" if place >= first else "" for place in range(len(head))]
    heads = joined(tag("th", cell, kind=kind, scope="col") for cell, kind in zip(head, kinds, strict=True))
    lines = (
        tag("tr", *(tag("td", cell, kind=kind, **{"data-head": str(name)})
                    for cell, name, kind in zip(row, head, kinds, strict=True)))
        for row in rows
    )  # fmt: skip
    above = tag("thead", tag("tr", heads)) if any(map(str, head)) else ""
    return tag(
        "table", above, tag("tbody", *lines), kind="ts-table ts-cards" if len(head) > _TABLE_COLUMNS else "ts-table"
    )


def bars(lines: Sequence[tuple[str, int]]) -> Html:
    """Horizontal bars: (label, length)."""
    most = max((length for _, length in lines), default=0) or 1
    drawn = (
        joined(
            (
                tag("span", label, kind="ts-bar-label"),
                tag("span", tag("i", style=f"width:{100 * length / most:.1f}%"), kind="ts-bar"),
                tag("span", f"{length:,}", kind="ts-bar-count"),
            )
        )
        for label, length in lines
    )
    return tag("div", *drawn, kind="ts-bars")


def long_text(text: str) -> Html:
    """Text as it was written; what is very long is cut, and says so."""
    more = f" … (+{len(text) - _CLIPPED:,})" if len(text) > _CLIPPED else ""
    return tag("div", text[:_CLIPPED], tag("b", more) if more else "", kind="ts-text", tabindex="0")


def note(text: object, kind: str = "") -> Html:
    """A paragraph; kinds are warn, bad, good, quiet."""
    return tag("p", text, kind=f"ts-note {kind}".strip())


def page_part(*parts: object) -> str:
    """What a gr.HTML shows: the parts within the tabs' style."""
    return str(tag("div", *parts, kind="ts"))


def style() -> str:
    """The style sheet of the tabs' own HTML."""
    return resources.files("tunesmith.studio").joinpath(_STYLE).read_text("utf-8")
