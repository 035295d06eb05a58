"""Texts without their HTML, and with everything else."""

import pytest

from rawrec.sources._html import without_html


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Bib for weight < 5 kg, sold in packs > 3 pieces", "Bib for weight < 5 kg, sold in packs > 3 pieces"),
        ("I <3 baby, mum & dad > all", "I <3 baby, mum & dad > all"),
        ("printed <1992>", "printed <1992>"),
        ("x<y and y>z, a <b and c> d", "x<y and y>z, a <b and c> d"),
        ("<none> <Insert title> <i-Size>", "<none> <Insert title> <i-Size>"),
        ("<p>Soft &amp; <B>warm</B><br/>for <a href='x>y' target=_blank>all</a></p>", "Soft & warm for all"),
        ("&lt;b&gt;Soft&lt;/b&gt;", "Soft"),
        ("&amp;lt;b&amp;gt;Soft &amp;amp; warm", "Soft & warm"),
        (
            "AT&T, 5 &gt; 3, &quot;x&quot;, a&copy=1, &#39;s, caf&eacute;&nbsp;!",
            'AT&T, 5 > 3, "x", a&copy=1, \'s, café !',
        ),
        ("<!-- a > b --> x <style type='text/css'>p {a: b}</style>y<script>1 < 2</script >z", "x y z"),
        ("<td nowrap>a</td><option selected value=1>b<hr noshade />c", "a b c"),
        ("<br", "<br"),
        ("&unknown; &#xD800; &;", "&unknown; \ufffd &;"),
        (" a\n\tb ", "a b"),
    ],
)
def test_html_goes_and_text_stays(text: str, plain: str) -> None:
    assert without_html(text) == plain


def test_no_text_takes_long() -> None:
    for piece in ("<a ", "<a b='", "<!--", "<script>", "&", "<a b=c ", "</", "&lt;a "):
        plain = "" if piece == "<script>" else (piece * 1000).strip().replace("&lt;", "<")
        assert without_html(piece * 1000) == plain
