"""Files of each format, made in the test, to the text that stands in them; and what is wrong with others."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.core.errors import DataError, MissingPackageError
from tunesmith.synthesis.readers import docx, epub, markup, package, pdf
from tunesmith.synthesis.texts import read_texts


def read(name: str, data: bytes, **keys: object) -> str:
    Path(name).write_bytes(data)
    (text,) = read_texts(RunConfig.from_dict({"input_file_path": name, **keys}, command="data make"), Path("out"))
    text.keep()
    assert text.file.read_bytes().decode() == text.text, "spans point into this file"
    return text.text


def problem(name: str, data: bytes, **keys: object) -> str:
    with pytest.raises(DataError) as caught:
        read(name, data, **keys)
    return str(caught.value)


def zipped(parts: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.mark.parametrize("data", ["\ufeff一\r\n二\n".encode(), b"a\tb\n\n\n c", "# 标题\n\n正文".encode()])
def test_a_utf8_text_is_taken_as_it_stands(data: bytes) -> None:
    assert read("a.md", data) == data.decode()
    assert not Path("out").exists(), "the user's own file is pointed into"


@pytest.mark.parametrize(("encoding", "keys"), [("gb18030", {}), ("utf-16", {}), ("big5", {"text_encoding": "big5"})])
def test_chinese_of_other_encodings(encoding: str, keys: dict[str, str]) -> None:
    text = "他在大雪中走了三天，終於看見城門。" if encoding == "big5" else "他在大雪中走了三天，终于看见城门。"
    assert read("a.txt", text.encode(encoding), **keys).lstrip("\ufeff") == text


def test_what_is_no_text() -> None:
    assert "nothing to read: the file is empty" in problem("a.txt", b"")
    assert "holds no letter" in problem("b.txt", b" \n\n --- ")
    assert "zero bytes" in problem("c.txt", b"abc\0def")
    assert "cp1252 or what it is" in problem("d.txt", "“Who’s there?” he asked.".encode("cp1252"))
    assert "does not read as Chinese" in problem("h.txt", "a long déjàvu without accents".encode("cp1252"))
    assert "text_encoding" in problem("e.txt", b"\xff\x80\x81 abc")
    assert "text_encoding 'gbx' is not known" in problem("f.txt", "你".encode(), text_encoding="gbx")
    assert "save a doc, mobi or rtf file" in problem("g.doc", b"x")
    assert "holds no long text" in problem_of_folder()


def problem_of_folder() -> str:
    Path("empty").mkdir()
    with pytest.raises(DataError) as caught:
        read_texts(RunConfig.from_dict({"input_file_path": "empty"}, command="data make"), Path("out"))
    return str(caught.value)


def test_all_bad_files_are_named_at_once() -> None:
    Path("a.txt").write_bytes(b"")
    Path("b.pdf").write_bytes(b"no pdf")
    config = RunConfig.from_dict({"input_file_path": ["a.txt", "b.pdf"]}, command="data make")
    with pytest.raises(DataError) as caught:
        read_texts(config, Path("out"))
    assert [entry.where for entry in caught.value.problems] == ["a.txt", "b.pdf"]


def test_texts_of_the_same_name_do_not_meet() -> None:
    for folder in ("x", "y"):
        Path(folder).mkdir()
        (Path(folder) / "book.html").write_text(f"<p>{folder}</p>")
    config = RunConfig.from_dict({"input_file_path": ["x", "y"]}, command="data make")
    assert [str(text.file) for text in read_texts(config, Path("o"))] == ["o/sources/book.txt", "o/sources/book_2.txt"]


HTML = """<!doctype html><html><head><meta charset="gb2312"><title>no</title><script>no()</script></head><body>
<nav><a href=x>no</a></nav><h1>第一章</h1><p>他说：<b>“走&amp;看”</b>。<br>下一行</p>
<ul><li>一<li>二</ul><table><tr><td>a<td>b</tr></table><div>尾<ruby>汉<rt>hàn</rt></ruby></div><p>unclosed &lt;x
</body></html>"""


def test_html() -> None:
    text = read("a.html", HTML.encode("gb2312", "xmlcharrefreplace"))
    assert text == "第一章\n\n他说：“走&看”。\n下一行\n\n一\n二\n\na\tb\n\n尾汉\n\nunclosed <x\n"
    assert markup.text_of("<p>a<script>if (1 < 2) {}</script>b<nav>c<p>d</nav>e") == "abe\n"


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
MC = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
DOCX = f"""<w:document {W} {MC}><w:body>
<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>第一章</w:t></w:r></w:p>
<w:p><w:r><w:t xml:space="preserve">他说 </w:t></w:r><w:ins><w:r><w:t>好</w:t></w:r></w:ins>
<w:del><w:r><w:delText>no</w:delText><w:t>no</w:t></w:r></w:del><w:hyperlink><w:r><w:t>。</w:t><w:br/><w:t>行</w:t></w:r></w:hyperlink></w:p>
<w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc></w:tr></w:tbl>
<w:sdt><w:sdtContent><w:p><w:r><w:t>inside</w:t></w:r></w:p></w:sdtContent></w:sdt>
<w:p><w:r><mc:AlternateContent><mc:Choice><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p></w:txbxContent></mc:Choice>
<mc:Fallback><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p></w:txbxContent></mc:Fallback></mc:AlternateContent></w:r></w:p>
</w:body></w:document>"""


def test_docx() -> None:
    assert read("a.docx", zipped({"word/document.xml": DOCX})) == "第一章\n\n他说 好。\n行\n\na\tb\n\ninside\n\nbox\n"
    assert "broken, or not what its name says" in problem("b.docx", b"not a zip")
    assert "word/document.xml is missing" in problem("c.docx", zipped({"x": "y"}))
    assert "broken XML" in problem("d.docx", zipped({"word/document.xml": "<w:p>"}))


def book(**more: str) -> bytes:
    parts = {
        "META-INF/container.xml": "<container><rootfiles>"
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        "OEBPS/book.opf": """<package xmlns="http://www.idpf.org/2007/opf"><manifest>
<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="b" href="two.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="text/one%201.xhtml" media-type="application/xhtml+xml"/>
<item id="s" href="s.css" media-type="text/css"/></manifest>
<spine><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/><itemref idref="s"/></spine></package>""",
        "OEBPS/nav.xhtml": "<p>no</p>",
        "OEBPS/text/one 1.xhtml": '<?xml version="1.0" encoding="utf-8"?><html><body><p>第一</p></body></html>',
        "OEBPS/two.xhtml": "<html><body><p>second</p></body></html>",
    }
    return zipped(parts | {name.replace("__", "/").replace("_xml", ".xml"): text for name, text in more.items()})


def test_epub() -> None:
    assert read("a.epub", book()) == "第一\n\nsecond\n"
    locked = '<encryption><CipherReference URI="OEBPS/two.xhtml"/></encryption>'
    assert "copy-protected" in problem("b.epub", book(**{"META-INF__encryption_xml": locked}))
    font = '<encryption><CipherReference URI="OEBPS/font.otf"/></encryption>'
    assert read("c.epub", book(**{"META-INF__encryption_xml": font})) == "第一\n\nsecond\n"


def test_a_part_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="unpacks to more"):
        docx.read(zipped({"word/document.xml": "x" * 2000}), "a.docx")


def test_a_billion_laughs_are_refused() -> None:
    rows = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "lol">{rows}]><x>&l11;</x>'
    with pytest.raises(DataError, match="broken XML"):
        epub.read(book(**{"META-INF__container_xml": bomb}), "a.epub")


def make_pdf(pages: list[list[str]]) -> bytes:
    """A plain PDF with lines in Helvetica."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for lines in pages:
        shown = "".join(f"({line}) Tj T* " for line in lines)
        content = f"BT /F1 12 Tf 14 TL 50 750 Td {shown}ET"
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /Contents {len(objects) + 2} 0 R /MediaBox [0 0 612 792] /Resources "
            "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out = b"%PDF-1.4\n"
    places = []
    for number, text in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode()
    return out + f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF".encode()


def test_pdf_lines_become_paragraphs() -> None:
    head = "The Book of Lamps"
    pages = [
        [head, "The lamp stands on the rock and it burned oil for a hun-",
         "dred and fifty years before it was changed.",
         "Then the wires came.", "Nobody missed the smell of the oil, but some of the old", "1"],
        [head, "keepers missed the work.", "2"],
        [head, "The end is near the beginning, as it is in most books.", "3"],
    ]  # fmt: skip
    text = read("a.pdf", make_pdf(pages))
    assert head not in text
    assert "for a hundred and fifty years before it was changed. Then the wires came.\n\nNobody" in text
    assert "some of the old keepers missed the work.\n\nThe end" in text


def test_chinese_lines_of_a_pdf_are_joined_without_blanks() -> None:
    lines = [["他在大雪中走了整整三天三夜终于看见了远处的", "城门，城门上挂着一盏灯。"]]
    assert pdf.joined(lines) == "他在大雪中走了整整三天三夜终于看见了远处的城门，城门上挂着一盏灯。\n"


def test_what_is_wrong_with_a_pdf(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the PDF cannot be read" in problem("a.pdf", b"%PDF-1.4 broken")
    assert "scanned pictures" in problem("b.pdf", make_pdf([[], []]))
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(PdfReader(io.BytesIO(make_pdf([["secret words"]]))))
    writer.encrypt("open sesame", algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    assert "asks for a password" in problem("c.pdf", buffer.getvalue())
    monkeypatch.setitem(sys.modules, "pypdf", None)
    monkeypatch.setattr("tunesmith.core.optional.is_installed", lambda name: False)
    with pytest.raises(MissingPackageError, match=r"tunesmith\[documents\]"):
        read("d.pdf", b"x")
