"""HTML to plain text: paragraphs apart, no scripts, no navigation."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from tunesmith.synthesis.readers import plain

_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_PARAGRAPHS = _HEADINGS | {
    *("p", "div", "section", "article", "main", "header", "blockquote", "figure", "figcaption", "address", "pre"),
    *("ul", "ol", "dl", "table", "body", "hr", "form", "fieldset"),
}
_LINES = frozenset({"li", "dt", "dd", "tr", "br", "option", "caption"})
_CELLS = frozenset({"td", "th"})
_HIDDEN = frozenset(
    {"script", "style", "template", "noscript", "head", "nav", "svg", "math", "iframe", "object", "rt", "rp", "select"}
)
_VOID = frozenset(
    {"br", "hr", "img", "input", "meta", "link", "col", "area", "base", "embed", "source", "track", "wbr"}
)
_CHARSET = re.compile(rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?([\w.-]+)""", re.IGNORECASE)


def read(data: bytes, place: str, encoding: str | None = None) -> str:
    """The text of a page; the encoding that the page names counts.

    Raises:
        DataError: the encoding cannot be read.
    """
    named = _CHARSET.search(data[:4096])
    has_mark = data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf"))
    text = plain.read(data, place, encoding or (named[1].decode() if named and not has_mark else None))
    return text_of(text)


def text_of(page: str) -> str:
    """The readable text of HTML: an empty line between paragraphs, a line end between lines."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.text()


class _Reader(HTMLParser):
    """Collects text; knows in which element it is."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._line: list[str] = []
        self._hidden: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN or self._hidden:
            if tag not in _VOID:
                self._hidden.append(tag)
            return
        self._pre += tag == "pre"
        self._border(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._hidden:
            self._border(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag in self._hidden:
                while self._hidden and self._hidden.pop() != tag:
                    pass
            elif tag in ("body", "html"):
                self._hidden.clear()
            return
        self._pre = max(0, self._pre - (tag == "pre"))
        if tag not in _VOID:
            self._border(tag)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        self._line.append(data if self._pre else re.sub(r"[ \t\r\n\f]+", " ", data))

    def _border(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._line.append("\n\n")
        elif tag in _LINES:
            self._line.append("\n")
        elif tag in _CELLS:
            self._line.append("\t")

    def text(self) -> str:
        """All of it, blanks put in order."""
        whole = "".join(self._line).replace("\u00a0", " ").replace("\r", "")
        lines = [re.sub(r" {2,}", " ", line).strip() for line in whole.split("\n")]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
