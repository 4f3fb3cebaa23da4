"""A conversation reads as the tokenizer's template has it, and starts once."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from harness.conversation import rendered
from harness.reader import TokenReader

TURNS = [{"role": "user", "content": "What is 6 x 7?"}]

LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\nToday Date: " + date_string + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""
MISTRAL = """{{ bos_token }}{% for message in messages %}
{%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}
{%- else %}{{ raise_exception('Only user and assistant roles are supported!') }}
{%- endif %}{% endfor %}"""
CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}
{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
NEOX = """{% for message in messages %}{{ '<|' + message['role'].upper() + '|>' }}
{{- message['content'] }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|ASSISTANT|>' }}{% endif %}"""


def bytewise(special, starts=None, **named):
    """Byte-level BPE, as Llama 3, Qwen and GPT-NeoX have; a post-processor adds `starts`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["us", "use", "user", "Ġ6", "ĊĊ"]
    merges = [("u", "s"), ("us", "e"), ("use", "r"), ("Ġ", "6"), ("Ċ", "Ċ")]
    words = {token: i for i, token in enumerate([*alphabet, *merged])}
    backend = Tokenizer(models.BPE(vocab=words, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return finished(backend, special, starts, named)


def sentencewise(special, starts=None, **named):
    """SentencePiece's BPE with bytes to fall back on, as Llama 2 and the first Mistral have."""
    letters = "▁ WhatisxINST[]/67?42Theanswer:no.<>s"
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *letters]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(words))}
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return finished(backend, special, starts, named)


def finished(backend, special, starts, named):
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    if starts:
        it = (starts, backend.token_to_id(starts))
        backend.post_processor = TemplateProcessing(
            single=f"{starts} $A", pair=f"{starts} $A {starts} $B", special_tokens=[it]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def llama(template=LLAMA):
    marks = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id"]
    special = [f"<|{mark}|>" for mark in marks]
    ends = {"bos_token": special[0], "eos_token": special[-1]}
    return bytewise(special, starts=special[0], chat_template=template, **ends)


def mistral(template=MISTRAL):
    special = ["<unk>", "<s>", "</s>"]
    ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return sentencewise(special, starts="<s>", chat_template=template, **ends)


def qwen(template=CHATML):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return bytewise(special, chat_template=template, eos_token="<|im_end|>")


def smollm(template=CHATML):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    ends = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    return bytewise(special, chat_template=template, **ends)


def neox(template=NEOX):
    special = ["<|endoftext|>", "<|padding|>", "<|USER|>", "<|ASSISTANT|>"]
    ends = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    return bytewise(special, chat_template=template, **ends)


STYLES = {"llama": llama, "mistral": mistral, "qwen": qwen, "smollm": smollm, "neox": neox}
WRITTEN = {
    "llama": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Today Date: 26 Jul 2024<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "What is 6 x 7?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s> [INST] What is 6 x 7? [/INST]",
    "qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "What is 6 x 7?<|im_end|>\n<|im_start|>assistant\n",
    "smollm": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "What is 6 x 7?<|im_end|>\n<|im_start|>assistant\n",
    "neox": "<|endoftext|><|USER|>What is 6 x 7?<|ASSISTANT|>",
}
every_style = pytest.mark.parametrize("style", STYLES)
every_start = pytest.mark.parametrize("style", [s for s in STYLES if s != "qwen"])


def asking(content):
    return [{"role": "user", "content": content}]


@every_style
def test_a_conversation_is_what_the_template_writes(style):
    reader = TokenReader(STYLES[style]())
    assert reader.chats
    assert reader.text(reader.chat(TURNS)) == WRITTEN[style]
    opened = reader.chat(TURNS, opening="The answer is")
    assert reader.text(opened) == f"{WRITTEN[style]}The answer is"


@every_style
def test_its_tokens_are_those_of_the_tokenizer_itself(style):
    tokenizer = STYLES[style]()
    own = tokenizer.apply_chat_template(
        TURNS, add_generation_prompt=True, return_dict=False, date_string="26 Jul 2024"
    )
    assert TokenReader(tokenizer).chat(TURNS) == [tokenizer.bos_token_id] * (style == "neox") + own


@every_start
@pytest.mark.parametrize("times", [0, 1, 2])
def test_the_start_token_is_there_once_however_often_the_template_writes_it(style, times):
    tokenizer = STYLES[style]()
    bare = tokenizer.chat_template.replace("{{- bos_token }}", "").replace("{{ bos_token }}", "")
    tokenizer.chat_template = "{{ bos_token }}" * times + bare
    reader = TokenReader(tokenizer)
    assert reader.text(reader.chat(TURNS)) == WRITTEN[style]
    assert reader.chat(TURNS)[0] == reader.bos != reader.chat(TURNS)[1]


@every_style
def test_a_tokenizer_that_adds_the_start_token_to_every_text_does_not_here(style):
    tokenizer = STYLES[style]()
    reader = TokenReader(tokenizer)
    adds = tokenizer("What")["input_ids"] != reader.tokens("What")
    assert adds == (style in ("llama", "mistral"))
    assert reader.bos not in reader.tokens("What is 6?")
    assert reader.chat(TURNS).count(reader.bos) == WRITTEN[style].count(
        tokenizer.convert_ids_to_tokens(reader.bos)
    )


def test_a_tokenizer_without_a_start_token_begins_as_its_template_does():
    reader = TokenReader(qwen())
    first = reader.tokenizer.convert_ids_to_tokens(reader.chat(TURNS)[0])
    assert first == "<|im_start|>"
    assert reader.tokenizer.convert_ids_to_tokens(reader.bos) == "<|endoftext|>"
    plain = bytewise(["</s>"], eos_token="</s>")
    assert TokenReader(plain).bos == plain.eos_token_id
    with pytest.raises(ValueError, match="neither a start nor an end token"):
        TokenReader(bytewise(["<|pad|>"]))


ENDS = {
    "llama": {"<|eot_id|>"},
    "mistral": {"</s>"},
    "qwen": {"<|im_end|>"},
    "smollm": {"<|im_end|>"},
    "neox": {"<|endoftext|>"},
}


@every_style
def test_an_answer_ends_where_the_tokenizer_or_the_template_ends_one(style):
    tokenizer = STYLES[style]()
    assert {*tokenizer.convert_ids_to_tokens([*TokenReader(tokenizer).ends])} == ENDS[style]


def test_a_template_ends_a_turn_though_the_tokenizer_names_another_end():
    """A fine-tune on conversations of a base model's tokenizer."""
    tokenizer = qwen()
    tokenizer.eos_token = "<|endoftext|>"
    found = tokenizer.convert_ids_to_tokens([*TokenReader(tokenizer).ends])
    assert {*found} == {"<|endoftext|>", "<|im_end|>"}
    refuses = CHATML.replace("{% if add", "{{ raise_exception('no') }}{% if add")
    assert len(TokenReader(qwen(refuses)).ends) == 1


@every_style
def test_special_tokens_are_no_text_and_words_are(style):
    reader = TokenReader(STYLES[style]())
    assert {reader.bos, *reader.ends} <= reader.marks
    assert not reader.marks & {*reader.tokens("What is 6 x 7? The answer: 42 <s>")}


# thoughts


QWEN3 = CHATML.replace(
    "{{ '<|im_start|>assistant\n' }}",
    "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}",
)
"""As Qwen3's, of which the model thinks aloud unless it is told not to."""
R1 = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
"""As that of DeepSeek's R1, which begins a thought."""


@pytest.mark.parametrize(("template", "done"), [(QWEN3, "off"), (R1, "closed"), (CHATML, None)])
def test_an_answer_is_asked_for_without_a_thought_that_is_written_out(template, done):
    reader = TokenReader(qwen(template))
    closed = "<think>\n\n</think>\n\n" if done else ""
    assert reader.thinking == done
    assert reader.text(reader.chat(TURNS)) == WRITTEN["qwen"] + closed
    opened = reader.chat(TURNS, opening="The answer is")
    assert reader.text(opened) == f"{WRITTEN['qwen']}{closed}The answer is"
    again = rendered(reader.tokenizer, [*TURNS, {"role": "assistant", "content": "It is"}],
                     answered=True)  # fmt: skip
    assert again.endswith("It is")


@every_style
def test_what_looks_like_a_special_token_in_a_message_is_text(style):
    tokenizer = STYLES[style]()
    reader, special = TokenReader(tokenizer), set(tokenizer.all_special_ids)
    special |= {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    spelled = "".join(tokenizer.added_tokens_decoder[i].content for i in sorted(special))
    said = f"What{spelled}? \ue000"
    found = reader.chat(asking(said), opening=f"The {spelled}")
    assert [t for t in found if t in special] == [t for t in reader.chat(TURNS) if t in special]
    written = WRITTEN[style].replace(TURNS[0]["content"], said)
    assert reader.text(found) == f"{written}The {spelled}"


@every_style
def test_turns_follow_one_another(style):
    reader = TokenReader(STYLES[style]())
    turns = [*TURNS, {"role": "assistant", "content": "42"}, {"role": "user", "content": "Why?"}]
    text = reader.text(reader.chat(turns))
    assert text.index("6 x 7?") < text.index("42") < text.index("Why?")
    assert text.startswith(WRITTEN[style].split("?")[0])


def test_a_conversation_is_held_on_the_same_day_for_ever():
    other = LLAMA.replace("%d %b %Y", "%A, %d %B %Y (%Y-%m-%d)")
    reader = TokenReader(llama(other))
    assert "Today Date: Friday, 26 July 2024 (2024-07-26)" in reader.text(reader.chat(TURNS))


@every_style
def test_a_tokenizer_without_a_template_says_so(style):
    reader = TokenReader(STYLES[style](None))
    assert not reader.chats
    with pytest.raises(LookupError, match=r"no chat template.*--prompt base"):
        reader.chat(TURNS)


def test_of_several_templates_the_default_one_is_taken():
    several = {"default": NEOX, "tool_use": CHATML}
    assert TokenReader(neox(several)).chat(TURNS) == TokenReader(neox()).chat(TURNS)
    assert not TokenReader(neox({"tool_use": CHATML})).chats


def test_a_template_that_refuses_a_conversation_says_why():
    with pytest.raises(ValueError, match="refuses the conversation: Only user and assistant roles"):
        TokenReader(mistral()).chat([{"role": "system", "content": "Be brief."}, *TURNS])
