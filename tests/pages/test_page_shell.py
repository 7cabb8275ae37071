"""The skeleton of the pages: policy and escaping."""

import base64
import hashlib
import importlib
import json
import re
import sys

import pytest

import rankscope as rs
from rankscope.pages import Data, Inline, Linked, page, plotly_javascript, policy, templates
from rankscope.pages.plotly_source import style_guards


def directives(text):
    return {name: sources.split() for name, _, sources in (part.strip().partition(" ") for part in text.split(";"))}


def sha256(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_of_a_standalone_page_allows_only_its_content():
    found = directives(policy([Inline("a()"), Inline("b()")], [Inline("p{}")]))
    assert found["default-src"] == ["'none'"]
    assert found["script-src"] == [sha256("a()"), sha256("b()")]
    assert found["style-src"] == [sha256("p{}")]
    assert found["connect-src"] == found["base-uri"] == found["form-action"] == ["'none'"]
    assert not any("unsafe-inline" in sources or "unsafe-eval" in sources for sources in map(str, found.values()))
    assert directives(policy([], []))["script-src"] == ["'none'"]


def test_the_policy_of_a_served_page_allows_its_server():
    found = directives(policy([Linked("a.js"), Linked("b.js")], [Linked("a.css")], ("'self'",)))
    assert found["script-src"] == found["style-src"] == found["connect-src"] == ["'self'"]


def test_hashes_are_those_of_what_the_page_holds():
    text = page("x", "<p>y</p>", scripts=[Inline("let a = 1 && 2;")], styles=[Inline("p > a{}")], data=[Data("d", 1)])
    (written,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    allowed = directives(written.replace("&#39;", "'"))
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    (style,) = re.findall(r"<style[^>]*>(.*?)</style>", text, flags=re.DOTALL)
    assert allowed["script-src"] == [sha256(script)]
    assert allowed["style-src"] == [sha256(style)]
    assert "<p>y</p>" in text


def test_titles_and_data_are_escaped():
    hostile = "</script><b>'\"&"
    text = page(hostile, "", lead=hostile, data=[Data("d", {"x": hostile})])
    assert hostile not in text
    assert "<b>" not in text
    (block,) = re.findall(r'id="d">(.*?)</script>', text)
    assert json.loads(block) == {"x": hostile}
    assert "<h1>&lt;/script&gt;" in text


@pytest.mark.parametrize("text", ["a </script> b", "a </STYLE>", "<!-- a"])
def test_a_script_cannot_end_its_own_element(text):
    with pytest.raises(rs.InputError, match="must not contain"):
        Inline(text)


def test_plotly_can_be_inlined():
    source = plotly_javascript()
    assert "plotly.js v" in source[:100]
    assert len(source) > 1e6
    assert Inline(source).source == sha256(source)
    for guard in style_guards():
        assert f'<meta id="{guard}"' in page("x", "")


@pytest.mark.parametrize(
    ("missing", "use", "extra"),
    [
        ("jinja2", lambda: templates.__wrapped__("rankscope.pages"), "report"),
        ("plotly", plotly_javascript.__wrapped__, "report"),
        ("starlette", lambda: importlib.import_module("rankscope.explore.serving"), "explore"),
        ("uvicorn", lambda: importlib.import_module("rankscope.explore.serving"), "explore"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, missing, use, extra):
    for name in [name for name in sys.modules if name.startswith((f"{missing}.", "rankscope.explore."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(rs.InputError, match=rf"needs {missing}: pip install 'rankscope\[{extra}\]'"):
        use()
