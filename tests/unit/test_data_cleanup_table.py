"""Files of every making are read as tables, or refused with a reason a person understands."""

from __future__ import annotations

import pytest

from onbelay_server.blueprints.data_cleanup.roles import detect_roles
from onbelay_server.blueprints.data_cleanup.table import CleanupError, read_table


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n \r\n\t\n", "empty"),
        (b"\x00\x00\x00", "empty"),
        (b"name,phone\n", "no rows below"),
        (b"PK\x03\x04rest", "Excel"),
        (b"%PDF-1.7", "PDF"),
        (bytes(range(256)) * 40, "not text"),
        (b"a," * 400 + b"b\n" + b"1,2\n", "columns"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(CleanupError, match=reason):
        read_table(data)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32"]
)
def test_every_usual_encoding_is_read(encoding: str) -> None:
    table = read_table("name,city\nCafé Zoë,Köln\nBar,Bonn\n".encode(encoding))
    assert table.header == ["name", "city"]
    assert table.rows[0] == ["Café Zoë", "Köln"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_usual_separator_is_found(delimiter: str) -> None:
    text = 'name,phone\n"A, B; C|D\tE",555-1234\nF,555-9999\n'.replace(",555", f"{delimiter}555")
    table = read_table(text.replace("name,", f"name{delimiter}").encode())
    assert table.header == ["name", "phone"]
    assert table.rows[0][0].replace("\t", " ") == "A, B; C|D E"


def test_a_table_without_header_gets_names_by_position() -> None:
    table = read_table(b"Joe Diner,12 Main St,60601\nX Bar,1 Elm St,60602\n")
    assert table.header == ["column_1", "column_2", "column_3"]
    assert len(table.rows) == 2
    assert any("not a header" in note for note in table.notes)


def test_ragged_rows_lose_nothing() -> None:
    table = read_table(b"name,phone\nA\nB,5551234,extra\n\nC,5559999\n")
    assert table.header == ["name", "phone", "extra_3"]
    assert table.rows == [["A", "", ""], ["B", "5551234", "extra"], ["C", "5559999", ""]]
    assert len(table.notes) == 3


def test_names_used_twice_are_numbered() -> None:
    table = read_table(b"name,name,,name_2\na,b,c,d\n")
    assert len(set(table.header)) == 4
    assert table.column("name") == ["a"]


def test_a_quotation_mark_never_closed_does_not_swallow_the_file() -> None:
    rows = "".join(f"Shop {n},555{n:04}\n" for n in range(500))
    table = read_table(f'name,phone\n"Open,5550000\n{rows}'.encode())
    assert len(table.rows) == 501


def test_a_huge_cell_is_cut_and_noted() -> None:
    table = read_table(b"name,phone\n" + b"x" * 1_000_000 + b",5551234\n")
    assert len(table.rows[0][0]) < 40_000
    assert any("longer than" in note for note in table.notes)


def test_nul_characters_are_left_out() -> None:
    assert read_table(b"na\x00me,b\nfoo bar,z\n").header == ["name", "b"]


def test_roles_come_from_header_and_cells() -> None:
    table = read_table(
        b"Ref,Kunde,Company,Street address,Postcode,Telephone,Mail,Fax\n"
        b"1,x,Acme Corp,12 Main St,60601,312-555-1234,a@b.com,312-555-0000\n"
        b"2,x,Foo Bar Inc,9 Elm Ave,60602,312-555-9999,c@d.org,312-555-0001\n"
    )
    assert detect_roles(table).columns == {
        "name": "Company",
        "address": "Street address",
        "zip": "Postcode",
        "phone": "Telephone",
        "email": "Mail",
    }


def test_a_column_that_only_claims_a_role_does_not_play_it() -> None:
    table = read_table(b"name,Email Address,phone\nAcme Corp,01/31/13,yes\nFoo Bar,08/31/13,no\n")
    assert set(detect_roles(table).columns) == {"name"}


def test_given_roles_overrule_and_are_checked() -> None:
    table = read_table(b"name,alias,phone\nAcme,The Acme,5551234\nFoo,The Foo,5559999\n")
    assert detect_roles(table, {"name": "alias"}).columns["name"] == "alias"
    with pytest.raises(CleanupError, match="no column 'nope'"):
        detect_roles(table, {"name": "nope"})
    with pytest.raises(CleanupError, match="not a role"):
        detect_roles(table, {"colour": "name"})


def test_first_and_last_name_are_one_name() -> None:
    table = read_table(b"First Name,Last Name,phone\nAda,Byron,5551234\nAlan,Turing,5559999\n")
    roles = detect_roles(table)
    assert roles.rows(table)[0].name == "Ada Byron"


def test_a_table_of_numbers_has_nothing_to_tell_entities_by() -> None:
    with pytest.raises(CleanupError, match="nothing to tell entities by"):
        detect_roles(read_table(b"a,b\n1.5,2\n3.5,4\n"))
