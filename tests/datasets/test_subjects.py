import pytest

from pipeline.datasets.subjects import same_person


@pytest.mark.parametrize(
    "spellings",
    [
        ["S01", "s-1", "S1", "S_01", " S 1 ", "\uff33\uff11", "S\u0967", "S\u200b1"],
        ["Jean Luc", "Jean-Luc", "jeanluc", "Jean_Luc.", "JEAN\u2013LUC"],
        ["O'Brien", "OBrien", "O\u2019Brien", "O\u00b4Brien", "O`Brien"],
        ["1-11", "1_11", "01-11", "1\u221211", "1 - 011"],
        ["1_05", "105"],
        ["S1-1", "S-1-1", "S-01-1", "S11"],
        ["S-", "S\u2212", "S -"],
        ["Stra\u00dfe", "STRASSE"],
        ["\u0130brahim", "ibrahim"],
        # With and without the points that are left out in writing: Moshe, Muhammad.
        ["\u05de\u05b9\u05e9\u05c1\u05b6\u05d4", "\u05de\u05e9\u05d4"],
        ["\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f", "\u0645\u062d\u0645\u062f"],
    ],
)
def test_spellings_of_one_person_find_one_another(spellings: list[str]) -> None:
    assert same_person(spellings) == dict.fromkeys(spellings, spellings)


@pytest.mark.parametrize(
    "names",
    [
        ["1-11", "11-1", "2-13", "21-3"],
        ["S1-11", "S11-1", "A-BC", "AB-C", "1-A1", "1A-1"],
        ["15", "105", "10", "100", "P1001", "P101", "P11", "1-6", "10-6", "1-06-1"],
        ["S", "S+", "S-", "S++", "+S"],
        # Hindi and Thai vowel signs, a Thai tone, a Hindi consonant with and without its dot.
        ["\u0930\u093e\u092e", "\u0930\u094b\u092e", "\u0930\u092e"],
        ["\u0e14\u0e35", "\u0e14\u0e38", "\u0e14\u0e48"],
        ["\u0915", "\u0915\u093c"],
        ["Zo\u00eb", "Zoe", "Zo\u00e9"],
        ["\U0001f600", "\U0001f601"],
        ["?", "??", "-", "--", "_"],
    ],
)
def test_names_of_different_people_stay_apart(names: list[str]) -> None:
    assert same_person(names) == {name: [name] for name in names}


def test_what_is_between_two_people_is_both() -> None:
    assert same_person(["1-11", "111", "11-1"]) == {
        "1-11": ["1-11", "111"],
        "111": ["1-11", "111", "11-1"],
        "11-1": ["111", "11-1"],
    }
