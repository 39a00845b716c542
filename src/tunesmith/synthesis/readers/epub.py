"""E-books (epub): the chapters in the order of reading (EPUB 2 and 3); no table of contents, no copy protection."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree

from tunesmith.synthesis.readers import markup
from tunesmith.synthesis.readers.package import Package, opened

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html")


def read(data: bytes, place: str, encoding: str | None = None) -> str:
    """The text of all chapters, an empty line between paragraphs.

    Raises:
        DataError: broken, no epub file, or copy-protected.
    """
    with opened(data, place) as package:
        protected = _protected(package)
        chapters = []
        for name in _spine(package):
            if name in protected:
                raise package.fault("the book is copy-protected and cannot be read")
            chapters.append(markup.read(package.read(name), f"{place}, {name}").strip())
    return "\n\n".join(chapter for chapter in chapters if chapter) + "\n"


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _named(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (element for element in root.iter() if _local(element) == name)


def _spine(package: Package) -> Iterator[str]:
    """Names of the parts that hold the chapters, in order."""
    root = next(_named(package.xml(_CONTAINER), "rootfile"), None)
    path = unquote(root.get("full-path", "")) if root is not None else ""
    if not path:
        raise package.fault("it does not say where its contents are")
    contents = package.xml(path)
    items = {item.get("id"): item for item in _named(contents, "item")}
    for reference in _named(contents, "itemref"):
        item = items.get(reference.get("idref"))
        if item is None or reference.get("linear") == "no" or item.get("media-type") not in _PAGES:
            continue
        if "nav" not in (item.get("properties") or "").split():
            yield posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(item.get("href", ""))))


def _protected(package: Package) -> set[str]:
    """Parts that are encrypted; fonts that are only disguised are no chapters and do no harm."""
    if _ENCRYPTION not in package.names:
        return set()
    references = _named(package.xml(_ENCRYPTION), "CipherReference")
    return {unquote(reference.get("URI", "")) for reference in references}
