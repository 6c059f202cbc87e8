"""Text, names and addresses of the real world come to one comparable form."""

from __future__ import annotations

import pytest

from onbelay_server.blueprints.data_cleanup.address import parsed_address
from onbelay_server.blueprints.data_cleanup.text import (
    folded,
    name_words,
    phone_digits,
    repaired,
    zip_code,
)


def test_text_that_was_misread_comes_back() -> None:
    broken = "Children’s".encode().decode("mac_roman")
    assert repaired(broken) == "Children’s"
    assert repaired(broken.encode().decode("mac_roman")) == "Children’s"
    assert repaired("Café".encode().decode("cp1252")) == "Café"
    assert repaired("Ångström, naïve") == "Ångström, naïve"


def test_control_characters_and_huge_cells_do_no_harm() -> None:
    assert repaired("a\x00b\r\n\tc") == "a b c"
    assert len(repaired("x" * 5_000_000)) == 4_000


@pytest.mark.parametrize("cell", ["", " ", "N/A", "none", "--", "NULL", "?"])
def test_a_cell_that_says_nothing_is_empty(cell: str) -> None:
    assert folded(cell) == ""


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("St. Mary's Day Care Ctr., Inc.", "Saint Marys Day Care Center"),
        ("Little Tykes II", "LITTLE TYKES 2"),
        ("Y.M.C.A. Garfield", "YMCA Garfield"),
        ("The House of Hope", "House Hope"),
        ("Niño", "Nino"),
    ],
)
def test_spellings_of_one_name_have_the_same_words(left: str, right: str) -> None:
    assert name_words(left) == name_words(right)


def test_a_name_of_connecting_words_keeps_them() -> None:
    assert name_words("The Of") == ("the", "of")


def test_other_scripts_make_words_too() -> None:
    assert name_words("Школа №5 «Ромашка»") == ("школа", "no5", "ромашка")
    assert name_words("东京 学校") == ("东京", "学校")
    assert parsed_address("Тверская улица") is not None


def test_infant_and_toddler_is_not_a_number() -> None:
    assert "1" not in name_words("El Hogar I/T")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1248 West 69th Street Chicago", "1248 W. 69th St."),
        ("1400 W Augusta Blvd., Suite 3", "1400 west augusta boulevard"),
        ("13231 S.Burley", "13231 S Burley"),
        ("PO Box 3, 12 N Main St", "12 North Main Street"),
        ("4250 N. St. Louis Ave", "4250 N Saint Louis Avenue"),
        ("3059 W. Augusta Boulevard\nChicago", "3059 W Augusta Blvd"),
    ],
)
def test_spellings_of_one_address_have_one_key(left: str, right: str) -> None:
    a, b = parsed_address(left), parsed_address(right)
    assert a is not None
    assert b is not None
    assert a.is_complete
    assert a.key == b.key


@pytest.mark.parametrize(
    ("cell", "numbers"),
    [
        ("1333-45 W. Argyle", (1333, 1345)),
        ("723 725 E 75th Street", (723, 725)),
        ("3416 ? -18 W. 79th Street", (3416, 3418)),
        ("12 79th Street", (12, 12)),
    ],
)
def test_a_range_of_house_numbers_is_understood(cell: str, numbers: tuple[int, int]) -> None:
    address = parsed_address(cell)
    assert address is not None
    assert (address.low, address.high) == numbers


@pytest.mark.parametrize("cell", ["", "   ", "-", "n/a", "##"])
def test_no_address_is_none(cell: str) -> None:
    assert parsed_address(cell) is None


@pytest.mark.parametrize("cell", ["69th and Sangamon", "P.O. Box 12", "0", "12", "’’1"])
def test_half_an_address_is_kept_as_text(cell: str) -> None:
    address = parsed_address(cell)
    assert address is not None
    assert address.text


@pytest.mark.parametrize(
    ("cell", "digits"),
    [
        ("(312) 555-1234", "3125551234"),
        ("+1 312.555.1234", "3125551234"),
        ("555-1234 ext 7", "5551234"),
        ("000-0000", ""),
        ("12", ""),
    ],
)
def test_phones_become_digits(cell: str, digits: str) -> None:
    assert phone_digits(cell) == digits


@pytest.mark.parametrize(
    ("cell", "code"), [("60614-1234", "60614"), ("606", ""), ("sw1a 1aa", "SW1A1AA"), ("", "")]
)
def test_postal_codes(cell: str, code: str) -> None:
    assert zip_code(cell) == code
