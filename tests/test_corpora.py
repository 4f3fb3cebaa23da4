"""Text in: the same documents everywhere, read once, and a plain word where there are none."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from harness.corpora import KINDS, SPLITS, StandardLibrary, find, label
from harness.network import commit
from harness.reader import TokenReader
from harness.task import Reader

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


class Backend:
    def __init__(self, name):
        self.name = name

    def to_str(self):
        return self.name


class Bytes:
    """A tokenizer whose tokens are bytes, and which counts what it reads."""

    bos_token_id, eos_token_id = 0, 1

    def __init__(self, name="bytes"):
        self.backend_tokenizer, self.texts = Backend(name), []
        self.added_tokens_decoder = {}

    def __call__(self, text, **_):
        self.texts.append(text)
        return {"input_ids": list(text.encode())}

    def decode(self, tokens, **_):
        return bytes(tokens).decode()

    def get_vocab(self):
        return {chr(i): i for i in range(256)}

    def convert_ids_to_tokens(self, tokens):
        return [chr(t) for t in tokens]


def read(corpus, reach=1, first=1, **options):
    return TokenReader(Bytes(), **options).documents(corpus, reach=reach, first=first)


def words(document):
    return bytes(document.tokens.tolist()).decode()


ROWS = [
    {"text": "a" * 30, "title": "Ape", "author": "x"},
    {"text": "b" * 10, "title": "Bee", "author": "y"},
    {"text": "c" * 50, "title": "Cat", "author": "x"},
    {"text": "d" * 40, "title": "Ape", "author": "z"},
]


@pytest.fixture(params=["parquet", "jsonl"])
def table(request, tmp_path):
    """The name of a corpus of four rows."""
    path = tmp_path / f"book.{request.param}"
    if request.param == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    return f"{request.param}:{path}"


# the standard library


def test_splits_share_no_file_and_hold_all():
    files = {split: set(find(f"stdlib:{split}").files()) for split in ("train", "validation")}
    files["test"] = set(find("stdlib").files())
    assert not files["train"] & files["validation"] and not files["test"] & files["train"]
    assert not files["validation"] & files["test"]
    total = sum(map(len, files.values()))
    assert total > 400 and 0.8 < len(files["train"]) / total < 0.95
    paths = [inside for split in files.values() for inside, _ in split]
    assert not any(
        folder in f"/{path}" for path in paths for folder in ("/test/", "/tests/", "site-packages/")
    )
    assert not any(path.startswith(("/", "_sysconfigdata")) for path in paths)


def test_a_file_is_in_the_split_its_path_says():
    ends = {"train": (0, 90), "validation": (90, 95), "test": (95, 100)}
    for split, (low, high) in ends.items():
        for inside, _ in find(f"stdlib:{split}").files():
            assert low <= int(sha256(inside.encode()).hexdigest()[:8], 16) % 100 < high
    assert all(isinstance(find(f"stdlib:{split}"), StandardLibrary) for split in SPLITS)


def test_documents_of_the_library_do_not_depend_on_how_far_they_must_reach():
    near, far = (read("stdlib", reach=n, first=3) for n in (10, 50_000))
    assert [d.name for d in near] == [d.name for d in far]
    assert all((a.tokens == b.tokens).all() for a, b in zip(near, far, strict=True))
    sizes = [len(d.tokens) for d in far]
    assert max(sizes) < 1.4 * min(sizes)


def test_too_few_tokens_say_how_many_there_are_and_where_are_more():
    held = sum(path.stat().st_size for _, path in find("stdlib").files())
    with pytest.raises(LookupError, match=r"stdlib:train \d+,\d+,000") as error:
        read("stdlib", reach=held // 3, first=3)
    assert f" of at least {held // 3:,} tokens, and 3 are needed" in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"first": 10**9}, r"has \d+ files, too few for 1,000,000,000 documents"),
        ({"first": 3, "reach": 10**9}, r"bytes, too few for 3 documents of 1,000,000,000 tokens"),
    ],
)
def test_what_the_library_cannot_hold_is_refused_before_it_is_read(monkeypatch, wanted, why):
    monkeypatch.setattr("harness.corpora.stdlib.read", None)
    with pytest.raises(LookupError, match=why):
        read("stdlib", **wanted)


# files


def test_rows_are_documents_in_order_with_their_titles(table):
    documents = read(table, reach=30, first=3)
    assert [(d.name, words(d)[0], len(d.tokens)) for d in documents] == [
        ("Ape", "a", 30),
        ("Cat", "c", 50),
        ("Ape (2)", "d", 40),
    ]
    assert all(d.tokens.dtype == np.int32 for d in documents)


def test_only_what_can_be_long_enough_is_tokenised(table):
    tokenizer = Bytes()
    TokenReader(tokenizer).documents(table, reach=30, first=2)
    assert [text[0] for text in tokenizer.texts] == ["a", "c"]


def test_rows_are_joined_by_a_column(table):
    (first,) = read(f"{table}+join:author", reach=80)
    assert (first.name, words(first)) == ("x", "a" * 30 + "\n\n" + "c" * 50 + "\n\n")
    assert [d.name for d in read(f"{table}:text+join:author", first=3)] == ["x", "y", "z"]


def test_another_column_can_hold_the_text(table):
    assert words(read(f"{table}:author")[0]) == "x"


def test_a_folder_of_texts_is_read_in_the_order_of_its_paths(tmp_path):
    for place in ("b/2.txt", "a/1.txt", "a/3.txt", "a/note.md"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(place)
    names = [d.name for d in read(f"text:{tmp_path}", first=3)]
    assert names == ["a/1.txt", "a/3.txt", "b/2.txt"]
    joined = read(f"text:{tmp_path}+join:folder", first=2)
    assert [(d.name, words(d)) for d in joined] == [
        ("a", "a/1.txt\n\na/3.txt\n\n"),
        ("b", "b/2.txt\n\n"),
    ]
    assert words(read(f"text:{tmp_path}/a/note.md")[0]) == "a/note.md"


def test_too_few_tokens_in_a_file_say_how_many_there_are(table):
    with pytest.raises(LookupError) as error:
        read(table, reach=45, first=2)
    assert "has 1 document of at least 45 tokens, and 2 are needed" in str(error.value)
    assert "its longest has 50. Take shorter lengths or --samples 1, or join short texts with " \
        "+join:COLUMN." in str(error.value)  # fmt: skip


@pytest.mark.parametrize(("reach", "first", "advice"), [
    (4, 3, "has 2 documents of at least 4 tokens, and 3 are needed; its longest has 9. "
     "Take --samples 2, or join short texts with +join:folder."),
    (8, 3, "Take --samples 1, or join"),
    (99, 3, "Take shorter lengths and --samples 2, or join"),
    (99, 1, "has 0 documents of at least 99 tokens, and 1 is needed; its longest has 9. "
     "Take shorter lengths, or join"),
])  # fmt: skip
def test_what_is_advised_for_a_folder_of_texts_can_work(tmp_path, reach, first, advice):
    (tmp_path / "a.txt").write_text("a" * 9)
    (tmp_path / "b.txt").write_text("b" * 5)
    with pytest.raises(LookupError) as error:
        read(f"text:{tmp_path}", reach=reach, first=first)
    assert advice in str(error.value)
    with pytest.raises(LookupError) as error:  # of one text there is nothing to join
        read(f"text:{tmp_path}/a.txt", reach=99, first=10)
    assert str(error.value).endswith("Take shorter lengths and --samples 1.")


def test_a_folder_that_is_there_is_told_how_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "novels").mkdir()
    (tmp_path / "novels" / "a.txt").write_text("a")
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(LookupError, match=r"'novels'\. Write text:novels for what lies there\."):
        find("novels")
    with pytest.raises(LookupError, match=r"Write jsonl:rows\.jsonl for"):
        find("rows.jsonl")
    with pytest.raises(LookupError, match=r"Did you mean 'stdlib'\?"):
        find("stdlb")


# the hub


def test_the_hub_is_streamed_no_further_than_needed(monkeypatch):
    asked, given = [], []

    def load_dataset(name, config, *, split, streaming, revision):
        asked.append((name, config, split, streaming, revision))
        if name == "none/such":
            raise RuntimeError("no such dataset\nand more")
        return (given.append(row) or row for row in ROWS)

    stub = ModuleType("datasets")
    stub.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", stub)
    assert read("hf:some/books", reach=20)[0].name == "Ape" and len(given) == 1
    assert read("hf:some/books@v2:en:train:author")[0].tokens.tolist() == [ord("x")]
    assert asked == [
        ("some/books", None, "test", True, None),
        ("some/books", "en", "train", True, "v2"),
    ]
    assert [d.name for d in read("hf:some/books+join:author", first=4)] == ["x", "y", "x (2)", "z"]
    with pytest.raises(LookupError, match=r"could not be opened: no such dataset$"):
        read("hf:none/such")
    with pytest.raises(LookupError, match="no column 'story'"):
        read("hf:some/books:en:train:story")
    assert label("hf:some/books:en") == "hf:some/books:en"


def test_the_commit_of_a_dataset_is_asked_for_and_without_a_network_read_from_the_copy(
    monkeypatch, tmp_path
):
    class Api:
        def dataset_info(self, repository, *, revision, timeout):
            if repository == "some/books":
                return SimpleNamespace(sha=f"{revision}-sha")
            raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "datasets--other--books" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("abc123\n")
    commit.cache_clear()
    assert commit("hf:some/books:en:train") == "None-sha"
    assert commit("hf:some/books@v2+join:author") == "v2-sha"
    assert commit("hf:other/books:en") == "abc123"
    assert commit("hf:other/books@v2") is commit("hf:no/such") is None
    assert commit(f"hf:no/such@{'a' * 40}") == "a" * 40
    assert commit("stdlib:test") is commit("") is None
    commit.cache_clear()


# labels


def test_a_label_is_the_content_and_not_the_place(tmp_path):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("one")
    one, same = (label(f"text:{tmp_path}/{folder}/a.txt") for folder in ("here", "there"))
    assert one == same == "text:a.txt@7692c3ad"  # sha256 of "one"
    (tmp_path / "there" / "a.txt").write_text("two")
    os.utime(tmp_path / "there" / "a.txt", ns=(1, 1))
    assert label(f"text:{tmp_path}/there/a.txt") != one
    assert label(f"text:{tmp_path}/here").startswith("text:here@")
    assert label(f"text:{tmp_path}/here+join:folder").startswith("text:here+join:folder@")


def test_labels_of_tables_and_the_library(table):
    kind = table.partition(":")[0]
    assert label(table).startswith(f"{kind}:book.{kind}:text@")
    assert label(f"{table}:title+join:author").startswith(f"{kind}:book.{kind}:title+join:author@")
    assert label("stdlib") == label("stdlib:test") != label("stdlib:train")
    assert label("stdlib").startswith("stdlib@") and len(label("stdlib")) == 15


# what is wrong is said


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("stdlob", "Did you mean 'stdlib'"),
        ("parkett:x", "Did you mean 'parquet'"),
        ("stdlib:trian", "Did you mean 'train'"),
        ("text:/no/such/place", "no file or folder /no/such/place"),
        ("parquet:/no/such/place:text", "no file or folder /no/such/place"),
        ("text:/no/such/place+join:author", "none of: folder"),
    ],
)
def test_what_is_not_there_is_named(name, complaint):
    with pytest.raises(LookupError, match=r"no file|none of|No corpus") as error:
        read(name)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("text:", "write text:PATH"),
        ("parquet", "write parquet:PATH"),
        ("text:a,b.txt", "comma"),
        ("stdlib:test+join:folder", "joined already"),
        ("hf:a:b:c:d:e", "too many parts"),
    ],
)
def test_what_is_written_wrongly_is_shown_rightly(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        find(name)


def test_a_missing_column_names_those_there_are(table):
    with pytest.raises(
        LookupError, match=r"no column 'txt'. Did you mean 'text'\? It has: text, t"
    ):
        read(f"{table}:txt")
    with pytest.raises(LookupError, match="no column 'year'"):
        read(f"{table}+join:year")


def test_a_file_that_is_not_what_it_says_is_named(tmp_path):
    (tmp_path / "a.parquet").write_text("no")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\nno\n')
    (tmp_path / "b.jsonl").write_text('{"text": 7}\n')
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n["text"]\n3\n')
    with pytest.raises(ValueError, match=r"a\.parquet is no Parquet file"):
        read(f"parquet:{tmp_path}/a.parquet")
    with pytest.raises(ValueError, match=r"Line 2 of .*a\.jsonl is no JSON"):
        read(f"jsonl:{tmp_path}/a.jsonl", first=2)
    with pytest.raises(ValueError, match=r"Line 2 of .*c\.jsonl is no JSON object"):
        read(f"jsonl:{tmp_path}/c.jsonl", first=2)
    with pytest.raises(ValueError, match="'text' holds int, not text"):
        read(f"jsonl:{tmp_path}/b.jsonl")
    with pytest.raises(LookupError, match=r"has no \.txt files"):
        read(f"text:{tmp_path}")


# how a model reads


def test_the_cache_gives_what_a_fresh_reading_gives(table, tmp_path):
    fresh = read(table, reach=30, first=3)
    kept = read(table, reach=30, first=3, cache=tmp_path)
    silent = Bytes()
    again = TokenReader(silent, tmp_path).documents(table, reach=30, first=3)
    assert silent.texts == []
    for one, two, three in zip(fresh, kept, again, strict=True):
        assert (one.tokens == two.tokens).all() and (one.tokens == three.tokens).all()
        assert three.tokens.dtype == np.int32
    other = Bytes("another")
    TokenReader(other, tmp_path).documents(table, reach=30, first=1)
    assert other.texts  # another tokenizer reads for itself
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]  # half written


def test_a_broken_cache_costs_time_and_not_the_run(table, tmp_path):
    read(table, cache=tmp_path)
    for kept in tmp_path.rglob("*.npy"):
        kept.write_bytes(b"torn")
    assert len(read(table, cache=tmp_path)[0].tokens) == 30
    (tmp_path / "file").write_text("in the way")
    assert len(read(table, cache=tmp_path / "file")[0].tokens) == 30


def test_an_input_starts_with_the_start_token_or_else_the_end_token():
    tokenizer = Bytes()
    assert TokenReader(tokenizer).bos == 0
    tokenizer.bos_token_id = None
    assert TokenReader(tokenizer).bos == 1
    tokenizer.eos_token_id = None
    with pytest.raises(ValueError, match="neither a start nor an end token"):
        TokenReader(tokenizer)


@pytest.mark.parametrize(
    ("pieces", "one_way"),
    [((), True), (("<unused12>", "h1", "<0x34>", "²"), True), (("48",), False), (("Ġ4",), False)],
)
def test_a_number_is_spelled_one_way_where_digits_stand_alone(pieces, one_way):
    tokenizer = Bytes()
    vocabulary = tokenizer.get_vocab()
    tokenizer.get_vocab = lambda: vocabulary | {p: 256 + i for i, p in enumerate(pieces)}
    assert TokenReader(tokenizer).spells_one_way == one_way


def test_a_text_that_spells_a_special_token_is_still_text():
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = {piece: i for i, piece in enumerate(["<s>", *"<s>abc"])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=alphabet, merges=[]))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    reader: Reader = TokenReader(tokenizer)
    assert reader.tokens("<s>a") == [1, 2, 3, 4] and reader.bos == 0
    assert reader.text(reader.tokens("abc")).replace(" ", "") == "abc"


def test_looking_up_a_corpus_loads_nothing_heavy():
    code = "import sys, harness.corpora as c; c.label('stdlib')\n"
    code += "print({'torch', 'transformers', 'datasets', 'pyarrow', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
    assert all(kind.written.startswith(name) for name, kind in KINDS.items())


def test_the_mark_that_some_editors_begin_a_file_with_is_none_of_its_text(tmp_path):
    mark = "\ufeff"
    (tmp_path / "a.txt").write_text(f"{mark}Call me Ishmael.", "utf-8")
    (tmp_path / "b.jsonl").write_text(f'{mark}{{"text": "Call me Ishmael."}}\n', "utf-8")
    for name in (f"text:{tmp_path}/a.txt", f"jsonl:{tmp_path}/b.jsonl"):
        assert words(read(name)[0]) == "Call me Ishmael."


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("text:a.txt", "café".encode("latin-1"), r"a\.txt is no UTF-8 text \(byte 0xe9\)"),
        ("text:a.txt", "Call me".encode("utf-16"), r"a\.txt is no UTF-8 text \(byte 0xff\)"),
        (
            "jsonl:a.jsonl",
            b'\n{"text": "\xe9"}\n',
            r"Line 2 of .*a\.jsonl is no UTF-8",
        ),
        ("jsonl:a.jsonl", rb'{"text": "a \ud83d"}', r"'text' holds half a character"),
    ],
)
def test_what_is_no_text_is_said_and_not_measured(name, raw, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name.partition(":")[2]).write_bytes(raw)
    with pytest.raises(ValueError, match=said):
        read(name)
