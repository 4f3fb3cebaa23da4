import pytest

from harness.lengths import label, lengths

K = 1024


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4k-32k", [4 * K, 8 * K, 16 * K, 32 * K]),
        ("4k-2048k", [4 * K << i for i in range(10)]),
        ("4k-100k", [4 * K, 8 * K, 16 * K, 32 * K, 64 * K]),
        ("2k-8k:2k", [2 * K, 4 * K, 6 * K, 8 * K]),
        ("4k,100k,128k", [4 * K, 100 * K, 128 * K]),
        ("128k, 1000, 4k-8k, 4k", [1000, 4 * K, 8 * K, 128 * K]),
        ("1M", [K * K]),
        ("4k-4k", [4 * K]),
        ("100-400:100", [100, 200, 300, 400]),
        ("2147483647", [2**31 - 1]),
    ],
)
def test_a_text_names_its_lengths(text, expected):
    assert lengths(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no length"),
        ("4q", "'4q'"),
        ("4k-", "is no length"),
        ("-4k", "'-4k' is no length"),
        ("2097152k", "at most 2,147,483,647 tokens"),
        ("4k-999999999999999m", "'4k-999999999999999m' is too long"),
        ("4k,,8k", "is no length"),
        ("1.5k", "'1.5k'"),
        ("4k-8k-16k", "'8k-16k'"),
        ("4k:2k", "no range"),
        ("32k-4k", "runs backwards: write it 4k-32k"),
        ("0", "has a zero"),
        ("2k-8k:0", "has a zero"),
        ("1-100000:1", "more than 10,000"),
        ("1-9000:1,10000-19000:1", "more than 10,000"),
        ("9" * 5000, "is no length"),
    ],
)
def test_what_is_wrong_is_said(text, complaint):
    with pytest.raises(ValueError, match=r"Write 4096|backwards|more than") as error:
        lengths(text)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("length", "expected"), [(4096, "4k"), (1000, "1000"), (2048 * K, "2048k"), (1, "1")]
)
def test_a_label_is_the_shortest_way_to_write_a_length(length, expected):
    assert label(length) == expected
    assert lengths(expected) == [length]
