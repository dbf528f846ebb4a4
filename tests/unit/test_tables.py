"""The tables of the documentation that are made from the code."""

import pytest

from tests import tables


@pytest.mark.parametrize("page", tables.TABLES)
def test_the_tables_are_what_the_code_says(page):
    assert sorted(tables.names(page)) == sorted(tables.TABLES[page])
    text = (tables.DOCS / page).read_text(encoding="utf-8")
    assert tables.renewed(page) == text, "`python -m tests.tables` writes the tables anew"


def test_an_attributes_number_is_given_once():
    numbers = [attribute.number for attribute in tables.ATTRIBUTES.values()]
    assert len(numbers) == len(set(numbers))
