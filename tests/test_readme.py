"""README: its code runs as it stands there, its links lead somewhere, its figures are those of the site."""

import re

import pytest

from tests import pages

README = pages.PAGES["README.md"]


def test_a_visitor_reads_it_in_five_minutes():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!https?://)[^)#]+)", README))
def test_a_link_leads_to_a_file(link):
    assert (pages.ROOT / link).is_file()


def test_figures_are_those_of_the_site():
    recipes = pages.PAGES["docs/recipes.md"]
    figures = re.findall(r"\d+\.\d ± \d+\.\d", README)
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in recipes] == []


def test_no_sentence_stands_twice():
    """Neither in README and on a page of the site, nor on two pages."""
    where = {}
    for page, text in pages.PAGES.items():
        for sentence in pages.sentences(text):
            where.setdefault(sentence, []).append(page)
    assert len(where) > 200
    assert {sentence: found for sentence, found in where.items() if len(found) > 1} == {}
