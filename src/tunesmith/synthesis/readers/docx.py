"""Word files (docx): paragraphs and tables in order; no comments, no footnotes, no deleted text (ECMA-376)."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from tunesmith.synthesis.readers.package import opened

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_PIECES = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-", f"{_W}softHyphen": ""}
_SKIPPED = frozenset({f"{_W}del", f"{_W}moveFrom", f"{_W}pPr", f"{_W}rPr", _FALLBACK})
_BOX = f"{_W}txbxContent"


def read(data: bytes, place: str, encoding: str | None = None) -> str:
    """The text: an empty line between paragraphs; a table's row is a line with tabs.

    Raises:
        DataError: broken, or no docx file.
    """
    with opened(data, place) as package:
        body = package.xml("word/document.xml").find(f"{_W}body")
    blocks = [] if body is None else [block for block in _blocks(body) if block.strip()]
    return "\n\n".join(blocks) + "\n"


def _blocks(parent: ElementTree.Element) -> Iterator[str]:
    """Paragraphs and tables below an element, also inside content controls and tracked insertions."""
    for child in parent:
        if child.tag == f"{_W}p":
            yield _text(child)
            for box in _boxes(child):
                yield from _blocks(box)
        elif child.tag == f"{_W}tbl":
            yield "\n".join(_row(row) for row in child.iter(f"{_W}tr"))
        elif child.tag not in _SKIPPED:
            yield from _blocks(child)


def _row(row: ElementTree.Element) -> str:
    cells = [child for child in row if child.tag == f"{_W}tc"]
    return "\t".join(" ".join(" ".join(_blocks(cell)).split()) for cell in cells)


def _text(element: ElementTree.Element) -> str:
    parts = []
    for child in element:
        if child.tag == f"{_W}t":
            parts.append(child.text or "")
        elif child.tag in _PIECES:
            parts.append(_PIECES[child.tag])
        elif child.tag not in _SKIPPED and child.tag != _BOX:
            parts.append(_text(child))
    return "".join(parts)


def _boxes(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """Text boxes that hang on a paragraph; the second copy that Word keeps for old programs is left out."""
    for child in element:
        if child.tag == _BOX:
            yield child
        elif child.tag not in _SKIPPED:
            yield from _boxes(child)
