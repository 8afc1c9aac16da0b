"""Where a page leads: its links, as a browser understands them.

HTML is read by the standard library's parser, so that what stands in a comment, a script or a text field is no link.
The page's encoding is what its first bytes, its server or the page itself say, in this order; what is not known is
passed over. A link is relative to `<base href>`, and what has no place in a URL is percent-encoded.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import SplitResult, quote, urldefrag, urljoin, urlsplit

HTML = {"text/html", "application/xhtml+xml"}
PIECE = 8192  # characters that are parsed in one go
LONGEST_TAG = 32768  # in characters, too
DECLARED_WITHIN = 1024  # bytes in which a page has to declare its encoding
TEXT_ONLY = {"iframe", "noembed", "noframes", "plaintext", "template", "textarea", "title", "xmp"}
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
LABELS = (
    "utf-8 utf-16 utf-16le utf-16be big5 big5hkscs euc-jp shift_jis iso-2022-jp euc-kr gbk gb2312 gb18030 koi8-r koi8-u"
    " macroman cp866 cp874 ascii cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 latin-1 iso8859-2"
    " iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8 iso8859-9 iso8859-10 iso8859-11 iso8859-13 iso8859-14"
    " iso8859-15 iso8859-16"
)
NAMES = {codecs.lookup(label).name for label in LABELS.split()}  # Python knows more, among them such as punycode
LARGER = {  # browsers take these for the larger encoding that they are a part of
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "gb2312": "gb18030",
    "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "utf-16": "utf-16-le",
}  # fmt: skip
BLANK = bytes(range(33)).decode()  # around a link
IN_PATH = "!$%&'()*+,-./:;=@[\\]^_|~"  # what is left as it is
IN_QUERY = IN_PATH.replace("'", "") + "?`{}"


class Page(HTMLParser):
    """What of a page leads elsewhere: the `links`, the `base` that they are relative to, and its `charset`."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.base: str | None = None
        self.charset: str | None = None
        self._within: list[str] = []  # elements whose content is text, or is there for scripts alone

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if self._within:
            self._within += [tag] if tag == self._within[-1] == "template" else []
            return
        given = {name: value or "" for name, value in reversed(attributes)}  # of two of a name the first counts
        match tag:
            case "a" | "area" if "href" in given:
                self.links.append(given["href"])
            case "base" if self.base is None:
                self.base = given.get("href")
            case "meta" if self.charset is None:
                refers = given.get("http-equiv", "").lower() == "content-type"
                self.charset = given.get("charset") or (charset(given.get("content", "")) if refers else None)
            case _ if tag in TEXT_ONLY:
                self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._within and tag == self._within[-1]:
            self._within.pop()

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """What begins with `<![` is a comment in HTML, whatever it is elsewhere; the library raises for most of it."""
        return self.parse_bogus_comment(i)

    def pieces(self, text: str) -> Iterator[None]:
        """Parse it, so much at a time. What is not finished at the end, such as a comment, holds no link."""
        for start in range(0, len(text), PIECE):
            self.feed(text[start : start + PIECE])
            if len(self.rawdata) > LONGEST_TAG and self.cdata_elem is None and re.match("</?[A-Za-z]", self.rawdata):
                return  # it is looked through each time, by a regular expression
            yield
        self.feed(" " * len(self.rawdata))  # newer parsers look at it again when as much has come as is not finished


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def charset(content_type: str) -> str | None:
    found = re.search(r"""\bcharset\s*=\s*["']?([^\s"';]+)""", content_type, re.IGNORECASE)
    return found[1] if found else None


def decoder(label: str | None) -> str | None:
    """Python's name of an encoding; None if it is not one that pages have."""
    if label is None or not re.fullmatch(r"[A-Za-z0-9_.:-]{1,40}", label):
        return None
    try:
        name = codecs.lookup(label).name
    except LookupError:
        return None
    return LARGER.get(name, name) if name in NAMES else None


def encoding(content_type: str, body: bytes) -> str:
    for mark, name in BYTE_ORDER_MARKS.items():
        if body.startswith(mark):
            return name
    if (told := decoder(charset(content_type))) is not None:
        return told
    page = Page()
    page.feed(body[:DECLARED_WITHIN].decode("latin-1"))
    if (told := decoder(page.charset)) is not None:
        return "utf-8" if told.startswith("utf-16") else told  # in which this could not have been read
    try:
        body.decode()
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def resolve(base: str, link: str, charset: str = "utf-8") -> str | None:
    """The URL that a link leads to, without its fragment. None if there is no sense in it."""
    link = re.sub(r"^[^?#]+", lambda place: place[0].replace("\\", "/"), link.strip(BLANK))
    try:
        url = urlsplit(urldefrag(urljoin(base, link)).url)
    except ValueError:  # a bracket that is not closed
        return None
    encoded = "utf-8" if charset.startswith("utf") else charset
    query = quote(url.query, IN_QUERY, encoded, "xmlcharrefreplace")
    return url._replace(path=quote(url.path, IN_PATH), query=query).geturl()


def links(url: str, content_type: str, body: bytes) -> Iterator[str | None]:
    """The URLs that a page leads to. None where others may have their turn: a page may be long."""
    charset = encoding(content_type, body)
    page = Page()
    for _ in page.pieces(body.decode(charset, "replace")):
        yield None
    base = resolve(url, page.base or "", charset) or url
    if not base.startswith(("http:", "https:")):
        base = url
    for number, link in enumerate(page.links, 1):
        yield resolve(base, link, charset)
        if number % 100 == 0:
            yield None


def same_site(url: str, here: SplitResult) -> str | None:
    """The URL as we ask for it, if it belongs to the site that `here` does."""
    found = urlsplit(url)
    try:
        if (found.scheme, found.hostname, found.port or 80) != (here.scheme, here.hostname, here.port or 80):
            return None
    except ValueError:  # a port that is no number
        return None
    return found._replace(netloc=here.netloc, path=found.path or "/").geturl()
