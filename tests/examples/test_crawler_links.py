"""What a browser would follow. Expected values are those of the HTML and URL standards."""

from __future__ import annotations

import random
from urllib.parse import urlsplit

import pytest

from crawler.links import LONGEST_TAG, PIECE, Page, decoder, encoding, links, media_type, resolve, same_site

HERE = "http://h/dir/page"


def found(html: str | bytes, content_type: str = "text/html; charset=utf-8", url: str = HERE) -> list[str]:
    body = html.encode() if isinstance(html, str) else html
    return [link for link in links(url, content_type, body) if link is not None]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<a href=a>", ["a"]),
        ("<A HREF='a'><aReA Href=\"b\">", ["a", "b"]),
        ("<a\nclass='>'\thref = 'a' id=x>", ["a"]),
        ("<a title='href=x' data-href=y href=a>", ["a"]),
        ("<a title='<a href=x>' href=a>", ["a"]),
        ("<a href=a href=b>", ["a"]),
        ("<a href='a&amp;b=&#x31;'>", ["a&b=1"]),
        ("<a><a name=x><abbr href=x><link href=x><img src=x>", []),
        ("<!-- <a href=x> --><a href=a><!-- > <a href=x>", ["a"]),
        ("<script>'<a href=x>'</script><style><a href=x></style><a href=a>", ["a"]),
        ("<SCRIPT src=y>'<a href=x>'</ScRiPt ><a href=a>", ["a"]),
        ("<textarea><a href=x></textarea><title><a href=x></title><a href=a>", ["a"]),
        ("<template><template></template><a href=x></template><a href=a>", ["a"]),
        ("<noscript><a href=a></noscript>", ["a"]),
        ("<![CDATA[ x ]]><a href=a><![if x]><a href=b><!DOCTYPE html><?x?><a href=c></ x><a href=d>", list("abcd")),
        ("<a href=a", []),
        ("<script><a href=x>", []),
        ("\0<a href=a\0b>", ["a%00b"]),
    ],
)
def test_what_is_a_link(html: str, expected: list[str]) -> None:
    assert found(html) == [f"http://h/dir/{link}" for link in expected]


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("/other/", "http://h/other/a"),
        ("../up", "http://h/a"),
        ("http://elsewhere/x/y", "http://elsewhere/x/a"),
        ("", "http://h/dir/a"),
        ("javascript:x", "http://h/dir/a"),
        ("http://[", "http://h/dir/a"),
    ],
)
def test_a_base(base: str, expected: str) -> None:
    assert found(f"<a href=a><base target=x><base href='{base}'><base href='/second/'><a href=a>") == [expected] * 2


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("", "http://h/dir/page"),
        ("#part", "http://h/dir/page"),
        ("a#part", "http://h/dir/a"),
        ("?a=1", "http://h/dir/page?a=1"),
        ("/", "http://h/"),
        ("../../../a/./b/../c", "http://h/a/c"),
        ("//other/a", "http://other/a"),
        ("HTTP://H/a", "http://H/a"),
        (" \t\r\n a\n b ", "http://h/dir/a%20b"),
        ("\\a\\b?c\\d", "http://h/a/b?c\\d"),
        ('a b/<>"`{}', "http://h/dir/a%20b/%3C%3E%22%60%7B%7D"),
        ("%41%zz%", "http://h/dir/%41%zz%"),
        ("ü?ü", "http://h/dir/%C3%BC?%C3%BC"),
        ("a?x='<\">", "http://h/dir/a?x=%27%3C%22%3E"),
        ("mailto:me@h", "mailto:me@h"),
        ("http://[", None),
        ("http://h:x/a", "http://h:x/a"),
    ],
)
def test_where_a_link_leads(link: str, expected: str | None) -> None:
    assert resolve(HERE, link) == expected


def test_a_query_is_in_the_encoding_of_its_page() -> None:
    body = "<a href='ü?ü'><a href='?€'>".encode()
    assert found(body) == ["http://h/dir/%C3%BC?%C3%BC", "http://h/dir/page?%E2%82%AC"]
    body = "<a href='ü?ü'><a href='?☃'>".encode("utf-16")
    assert found(body) == ["http://h/dir/%C3%BC?%C3%BC", "http://h/dir/page?%E2%98%83"]
    body = "<a href='ж?ж'><a href='?&#9731;'>".encode("koi8-r")
    assert found(body, "text/html;charset=KOI8-R") == ["http://h/dir/%D0%B6?%D6", "http://h/dir/page?&%239731;"]


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("text/html", b"", "utf-8"),
        ("text/html", b"\xc3\xbc", "utf-8"),
        ("text/html", b"\xfc", "cp1252"),
        ("text/html; charset=ISO-8859-1", b"", "cp1252"),
        ("text/html; Charset = 'windows-1251'", b"", "cp1251"),
        ('text/html; x=y; charset="utf-8"', b"\xfc", "utf-8"),
        ("text/html; charset=latin-1", b"\xef\xbb\xbf", "utf-8"),
        ("text/html; charset=utf-8", b"\xff\xfea\0", "utf-16-le"),
        ("text/html; charset=no-such", b"<meta charset=koi8-r>", "koi8-r"),
        ("text/html", b"<META http-equiv=Content-Type content='text/html; charset=gb2312'>", "gb18030"),
        ("text/html", b"<meta name=x content='charset=koi8-r'><meta charset=big5>", "big5"),
        ("text/html", b"<!-- <meta charset=koi8-r> -->", "utf-8"),
        ("text/html", b"<meta charset=utf-16>", "utf-8"),
        ("text/html", b" " * 1024 + b"<meta charset=koi8-r>", "utf-8"),
    ],
)
def test_the_encoding_of_a_page(content_type: str, body: bytes, expected: str) -> None:
    assert encoding(content_type, body) == expected


@pytest.mark.parametrize(
    "label", ["punycode", "idna", "unicode_escape", "rot13", "hex", "undefined", "zip", "os", "a\0b", "ü", "x" * 99, ""]
)
def test_encodings_that_no_page_has(label: str) -> None:
    assert decoder(label) is None
    assert found("<a href=a>", f"text/html; charset={label}") == ["http://h/dir/a"]


def test_media_types_in_any_case() -> None:
    assert media_type(" Text/HTML ; charset=x") == "text/html"
    assert media_type("") == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://H:80", "http://u:p@h/"),
        ("http://other@h/a?b", "http://u:p@h/a?b"),
        ("http://h:8080/", None),
        ("http://h:x/", None),
        ("https://h/", None),
        ("http://h.x/", None),
    ],
)
def test_the_same_site(url: str, expected: str | None) -> None:
    assert same_site(url, urlsplit("http://u:p@h/dir/page")) == expected


def test_nonsense_and_pieces() -> None:
    """Random pieces of HTML raise nothing, and the parts in which a page is parsed make no difference."""
    words = ["<", "</", "<!", "<!--", "-->", "<![", "]", "a", " href", "=", "'", '"', ">", "script", "&#x", "template"]
    words += ["<a href=a>", "textarea", "<?", "/", "base ", "meta ", "charset", "\0", "ü", "\n", "&amp;", "<title>"]
    for seed in range(300):
        some = random.Random(seed)
        text = "".join(some.choices(words, k=60))
        padded = "<p>" + "x" * (PIECE - 3 - some.randrange(len(text))) + text
        whole, parts = Page(), Page()
        whole.feed(text)
        assert len(list(parts.pieces(padded))) == -(-len(padded) // PIECE)
        assert (seed, parts.links, parts.base) == (seed, whole.links, whole.base)


@pytest.mark.parametrize(
    "text", ["<a ", "<a href='", "<a/", "a=b ", "</a "], ids=["tag", "quote", "slash", "many", "end"]
)
def test_a_tag_without_an_end_is_given_up(text: str) -> None:
    """The library's parser looks through it each time, or, where it is newer, when there is twice as much of it."""
    page = Page()
    pieces = page.pieces("<a " + text * (1_000_000 // len(text)))
    assert len(list(pieces)) <= 2 * LONGEST_TAG // PIECE
    page = Page()
    list(page.pieces(f"<a title='{'x' * (LONGEST_TAG - 2 * PIECE)}' href=a><!--{'x' * 2 * LONGEST_TAG}--><a href=b>"))
    assert page.links == ["a", "b"]
