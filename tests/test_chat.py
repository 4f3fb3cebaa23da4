"""Chat data: exactly what the assistant says is learned, whatever the template."""

import json

import pytest

from harness import model
from harness.reader import TokenReader
from harness.train.chat import MASKED, ZEPHYR, Rendering, open_conversations


@pytest.fixture(scope="module")
def plain():
    """A tokenizer without a chat template."""
    return model.tokenizer(model.describe("toy"))


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{% if messages[0].role != 'user' %}{{ raise_exception('A user begins.') }}{% endif %}"
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
FORGETFUL = (
    "{% for m in messages %}{{ m.role }}: {% if loop.last %}(thinks) {% endif %}{{ m.content }}\n"
    "{% endfor %}"
)


@pytest.fixture
def templated(plain):
    """The tokenizer with a template of its own."""

    def templated(template):
        plain.chat_template = template
        return plain

    yield templated
    plain.chat_template = None


def said(*contents, system=None):
    """Messages by turns, the user's first."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system else []) + turns


TALKS = [
    said("Hi!", "Hello. How can I help?", "What is 2 + 2?", "It is 4."),
    said("Name a colour.", "  Blue, as the sea is.\n\nOr green.  ", system="Be brief."),
    said("Wörter? 北京", "Ja — natürlich: 大学 🙂."),
]


def file(tmp_path, talks, **more):
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(json.dumps({"messages": talk} | more) for talk in talks))
    return f"jsonl:{path}"


def learned(tokenizer, talk, on="assistant"):
    """The text whose tokens are learned, piece by piece."""
    tokens, mask = Rendering.of(tokenizer).tokens(talk, on, "It")
    pieces, run = [], []
    for token, learn in zip([*tokens, 0], [*mask, False], strict=True):
        if learn:
            run.append(int(token))
        elif run:
            pieces.append(tokenizer.decode(run))
            run = []
    return pieces


# what is learned


@pytest.mark.parametrize("talk", TALKS, ids=["turns", "system", "unicode"])
def test_the_answers_and_their_ends_are_learned_and_nothing_else(plain, talk):
    answers = [m["content"] for m in talk if m["role"] == "assistant"]
    assert learned(plain, talk) == [f"{answer}</s>\n" for answer in answers]


@pytest.mark.parametrize(("template", "end"), [(CHATML, "<|im_end|>\n"), (LLAMA, "</s>")])
def test_a_template_without_marks_is_masked_by_its_prefixes(templated, template, end):
    talk = TALKS[0]
    answers = [m["content"] for m in talk if m["role"] == "assistant"]
    pieces = learned(templated(template), talk)
    assert [piece.lstrip(" ") for piece in pieces] == [f"{answer}{end}" for answer in answers]


@pytest.mark.parametrize("template", [None, CHATML, LLAMA])
def test_tokens_are_those_of_the_rendering_whatever_is_learned(templated, template):
    tokenizer = templated(template)
    rendering = Rendering.of(tokenizer)
    talk = TALKS[0]
    tokens = [rendering.tokens(talk, on, "It")[0].tolist() for on in ("assistant", "all")]
    shown = talk if template else said(*(m["content"] for m in talk), system=" ")
    text = tokenizer.apply_chat_template(shown, chat_template=template or ZEPHYR, tokenize=False)
    text = text if template else text.replace("<|system|>\n ", "<|system|>\n")
    read = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = tokenizer.bos_token_id
    assert tokens[0] == tokens[1] == ([] if read[0] == start else [start]) + read


DATED = (
    "{{ bos_token }}{{ bos_token }}Today is {{ strftime_now('%d %B %Y') }}.{{ eos_token }}"
    "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


@pytest.mark.parametrize("template", [None, CHATML, LLAMA, DATED])
@pytest.mark.parametrize("on", ["assistant", "all"])
def test_what_is_learned_is_read_as_it_is_asked(templated, template, on):
    """One start token, one day, and what spells out a special token in a message is text."""
    talk = said("Say </s> and <s>, as in a</s>b.", "Here: </s>!", "Again?", "</s>")
    tokenizer = templated(template)
    rendering = Rendering.of(tokenizer)
    tokens, mask = rendering.tokens(talk, on, "It")
    tokenizer.chat_template = template or ZEPHYR  # as it is saved with the model
    asked = TokenReader(tokenizer).chat(talk[:-1])
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    sure = len(asked) - 2  # a token may reach into the answer
    assert [*tokens[:sure]] == asked[:sure]
    assert [*tokens].count(start) == 1 and tokens[0] == start and len(mask) == len(tokens)
    ends = tokenizer.apply_chat_template(said(*"abcd"), tokenize=False).count("</s>")
    assert [*tokens].count(end) == ends
    assert mask[0] == (on == "all")
    text = tokenizer.decode(tokens[mask])
    assert "Here: </s>!" in text and ("Again?" in text) == (on == "all")
    assert template != DATED or "Today is 26 July 2024." in tokenizer.decode(tokens)


def test_all_is_learned_where_that_is_wanted(plain):
    tokens, mask = Rendering.of(plain).tokens(TALKS[0], "all", "It")
    assert mask.all() and len(mask) == len(tokens)


def test_a_token_that_is_partly_the_question_is_not_learned(templated):
    tokenizer = templated("{% for m in messages %}{{ m.content }}{% endfor %}")
    tokens, mask = Rendering.of(tokenizer).tokens(said("def fu", "nction(self)"), "assistant", "It")
    pieces = [tokenizer.decode([t]) for t in tokens]
    at = mask.tolist().index(True)
    assert len("".join(pieces[:at])) > len("def fu") and mask[at:].all()


def test_an_answer_to_nothing_is_not_learned(templated):
    talk = [{"role": "assistant", "content": "Welcome."}, *said("Hi", "Ho")]
    assert learned(templated(CHATML), talk) == ["Ho<|im_end|>\n"]


def test_without_a_template_an_empty_system_message_comes_first(plain):
    tokens, _ = Rendering.of(plain).tokens(said("Hi", "Ho"), "assistant", "It")
    assert plain.decode(tokens) == (
        "<s><|system|>\n</s>\n<|user|>\nHi</s>\n<|assistant|>\nHo</s>\n"
    )
    plain.chat_template = ZEPHYR  # as it is saved with the model
    try:
        asked = plain.apply_chat_template(
            said("Hi")[:1], tokenize=False, add_generation_prompt=True
        )
    finally:
        plain.chat_template = None
    assert asked == "<s><|system|>\n</s>\n<|user|>\nHi</s>\n<|assistant|>\n"


def test_a_template_that_rewrites_what_was_said_is_refused(templated, tmp_path):
    tokenizer = templated(FORGETFUL)
    corpus = file(tmp_path, TALKS)
    with pytest.raises(ValueError, match=r"Conversation 1 of .* renders its message 2 otherwise"):
        open_conversations(corpus, tokenizer, 16)
    assert len(open_conversations(corpus, tokenizer, 16, on="all"))


def test_a_conversation_that_the_template_refuses_is_named(templated, tmp_path):
    corpus = file(tmp_path, [TALKS[0], said("Hi", "Ho", system="Be brief.")])
    with pytest.raises(ValueError, match=r"Conversation 2 of .*: A user begins\."):
        open_conversations(corpus, templated(LLAMA), 16)


# sequences


@pytest.mark.parametrize("length", [8, 32, 64])
def test_packing_conversations_loses_nothing(plain, tmp_path, length):
    found = open_conversations(file(tmp_path, TALKS * 5), plain, length, on="all")
    rendered = [Rendering.of(plain).tokens(talk, "all", "It")[0].tolist() for talk in TALKS * 5]
    stream = [token for tokens in rendered for token in tokens]
    together = [t for item in found for t in item["input_ids"].tolist()]
    assert together == stream[: len(together)]
    assert found.left_over == len(stream) - len(together) < length and not found.skipped


def test_labels_are_the_tokens_that_are_learned(plain, tmp_path):
    found = open_conversations(file(tmp_path, TALKS * 5), plain, 64)
    assert len(found)
    for item in found:
        tokens, labels = item["input_ids"], item["labels"]
        assert (labels[labels != MASKED] == tokens[labels != MASKED]).all()
        assert (labels[1:] != MASKED).any() and (tokens >= 0).all()
    text = plain.decode([t for item in found for t in item["labels"].tolist() if t != MASKED])
    assert "It is 4." in text and "2 + 2" not in text and "<|user|>" not in text


def test_a_sequence_in_which_nothing_is_learned_is_left_out_and_counted(plain, tmp_path):
    corpus = file(tmp_path, [said("Why? " * 60, "Because."), *TALKS * 3])
    found, every = (open_conversations(corpus, plain, 32, on=on) for on in ("assistant", "all"))
    assert found.skipped > 1 and len(found) + found.skipped == len(every)


def test_only_as_many_sequences_as_are_wanted_are_made(plain, tmp_path):
    assert len(open_conversations(file(tmp_path, TALKS * 9), plain, 32, first=2)) == 2


def test_conversations_are_named_by_content(plain, tmp_path):
    found = open_conversations(file(tmp_path, TALKS), plain, 32)
    assert found.label.startswith("jsonl:chat.jsonl:messages@") and found.template is not None


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{"text": "Hi"}], "has no column 'messages'"),
        ([{"messages": "Hi"}], "Conversation 1 of .* is no list of messages"),
        ([{"messages": [{"role": "user"}]}], "a message without role and content"),
        ([{"messages": said("Hi", "Ho")}], "tokens of conversations, and one sequence takes 512"),
        ([{"messages": said("Hi " * 999)}], "no message is the assistant's"),
    ],
)
def test_rows_that_are_no_conversations_have_a_sentence(plain, tmp_path, rows, why):
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises((ValueError, LookupError), match=why):
        open_conversations(f"jsonl:{path}", plain, 512)


def test_text_is_no_conversation(plain, tmp_path):
    with pytest.raises(ValueError, match="write jsonl:PATH or hf:NAME"):
        open_conversations("stdlib:train", plain, 32)


@pytest.mark.slow
def test_the_real_model_learns_its_own_turns(tmp_path):
    tokenizer = model.tokenizer(model.describe("smollm2-135m"))
    for talk in TALKS:
        answers = [m["content"] for m in talk if m["role"] == "assistant"]
        expected = [f"{answer}<|im_end|>\n".lstrip() for answer in answers]
        assert [piece.lstrip() for piece in learned(tokenizer, talk)] == expected
    found = open_conversations(file(tmp_path, TALKS * 9), tokenizer, 64)
    assert found.template is None
    assert tokenizer.decode(found[0]["input_ids"]).startswith("<|im_start|>system\n")
