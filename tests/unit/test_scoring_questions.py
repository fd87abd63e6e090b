"""Questions about texts: their tokens are the tokenizer's own, authors write no control tokens, both ends are kept."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from stream.bundle.questions import Templates, parse_templates
from stream.errors import BundleError
from stream.scoring.batching import MicroBatch
from stream.scoring.questions import QuestionTokenizer, find_answer
from stream.scoring.tokenize import Encoded, PlainTokenizer
from tests.causal import BEGIN, BYTES, END_TURN, HARMS, PROMPT, RESPONSE, TOKENIZERS, TURN, questions_yaml, tokenizer_of

SPECIAL = (BEGIN, TURN, END_TURN, "<pad>", "<unk>")
PLAIN = (
    "hate",
    " ",
    "How do I",
    "\n",
    "é",
    "字",
    "Yes",
    "😀",
    "a",
    "?",
    "<",
    "<start",
    "_of_turn>",
    "\ud83d",
    "\x00",
    "▁",
)
ANY_TEXT = st.lists(st.sampled_from((*SPECIAL, *PLAIN)), min_size=1, max_size=12).map("".join) | st.text(max_size=20)
LONG_OR_SHORT = ANY_TEXT | ANY_TEXT.map(lambda text: text * 60)


def templates_of(kind: str = "gemma", **changes: Any) -> Templates:
    """The tiny questions with the answers' tokens of a tokenizer."""
    document = questions_yaml(**changes)
    tokenizer = Tokenizer.from_buffer(tokenizer_of(kind))
    answers = {name: {"text": text, "token": tokenizer.token_to_id(text)} for name, text in document["answers"].items()}
    kept = {
        key: document[key] for key in ("schema_version", "name", "version", "prompt", "response") if key in document
    }
    return Templates.model_validate_json(json.dumps(kept | {"answers": answers}))


def asking(kind: str = "gemma", *, max_tokens: int = 160, **changes: Any) -> QuestionTokenizer:
    """What reads texts as the tiny questions."""
    return QuestionTokenizer(tokenizer_of(kind), templates_of(kind, **changes), harms=HARMS, max_tokens=max_tokens)


ASKING = {kind: asking(kind) for kind in TOKENIZERS}


def said(tokens: list[int]) -> str:
    """What tokens of the tokenizer like Gemma's stand for."""
    vocabulary = Tokenizer.from_buffer(tokenizer_of("gemma")).get_vocab(with_added_tokens=True)
    by_token = {token: name for name, token in vocabulary.items()}
    names = [by_token[token] for token in tokens]
    return "".join(chr(int(name[3:5], 16)) if name in BYTES else name.replace("▁", " ") for name in names)


def written(harm: str, text: str, *, role: str, prompt: str = "") -> str:
    """A question as its author would put it together."""
    family = questions_yaml()["prompt" if role == "prompt" else "response"]
    filled = family["template"].replace("{guideline}", family["guidelines"][harm])
    user, response = (text, "") if role == "prompt" else (prompt, text)
    return str(filled.replace("{user}", user).replace("{response}", response))


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=12), prompt=st.sampled_from(["", "Do you?", " x\n"])
)
def test_tokens_are_those_of_the_whole_question(kind: str, text: str, prompt: str) -> None:
    """A question has the tokens that the tokenizer gives for the filled-in template as one text."""
    tokenizer = Tokenizer.from_buffer(tokenizer_of(kind))
    for role in ("prompt", "output", "post"):
        asked = ASKING[kind].each(text, role=role, prompt=prompt)
        assert asked == [tokenizer.encode(written(harm, text, role=role, prompt=prompt)).ids for harm in HARMS]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=LONG_OR_SHORT, prompt=LONG_OR_SHORT, role=st.sampled_from(["prompt", "output", "post"]))
def test_authors_write_no_control_tokens(kind: str, text: str, prompt: str, role: str) -> None:
    """Whatever a text spells, a question has the control tokens of its template and no other."""
    controls = {ASKING[kind]._tokenizer.controls[name] for name in (BEGIN, TURN, END_TURN, "<pad>")}
    asked = ASKING[kind].each(text, role=role, prompt=prompt)
    empty = ASKING[kind].each("", role=role, prompt="")
    for question, bare in zip(asked, empty, strict=True):
        assert [token for token in question if token in controls] == [token for token in bare if token in controls]


def test_a_control_token_in_a_text_is_its_characters() -> None:
    """An end of turn that an author writes is read as the characters it has, marked as special or not."""
    for name in (END_TURN, BEGIN):
        question = ASKING["gemma"].each(f"x{name}y", role="prompt")[0]
        assert said(question) == BEGIN + written(HARMS[0], f"x{name}y", role="prompt")


def test_the_families_are_not_mixed() -> None:
    """A prompt is asked about in the words for prompts, an output and a post in those for responses."""
    for role in ("prompt", "output", "post"):
        for harm, question in zip(HARMS, ASKING["gemma"].each("x", role=role, prompt="ask"), strict=True):
            assert said(question) == BEGIN + written(harm, "x", role=role, prompt="ask")


def test_a_post_answers_nothing_unless_it_does() -> None:
    """The prompt of an event is the question of a response, empty where there is none, and unread beside a prompt."""
    read = ASKING["gemma"].each
    assert read("x", role="post", prompt=None) == read("x", role="post", prompt="")
    assert read("x", role="post", prompt="ask") != read("x", role="post")
    assert read("x", role="prompt", prompt="ask") == read("x", role="prompt")


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(texts=st.lists(LONG_OR_SHORT, min_size=1, max_size=4), data=st.data())
def test_a_row_holds_every_question_whole(kind: str, texts: list[str], data: st.DataObject) -> None:
    """What is marked as shared and what is marked as one question's are, in order, the tokens of that question."""
    roles = [data.draw(st.sampled_from(["prompt", "output", "post"])) for _ in texts]
    rows = ASKING[kind].read(texts, roles=roles, prompts=texts[::-1])
    for at, (text, role, prompt) in enumerate(zip(texts, roles, texts[::-1], strict=True)):
        length = int(rows.lengths[at]) + 3
        inputs = rows.inputs(MicroBatch(np.array([at]), length, idle=1))
        ids, marks = inputs.input_ids[0], inputs.attention_mask[0]
        for number, question in enumerate(ASKING[kind].each(text, role=role, prompt=prompt)):
            assert ids[(marks == 1) | (marks == number + 2)].tolist() == question
            assert len(question) <= 160
        assert (marks[-3:] == 0).all()
        assert inputs.attention_mask[1].tolist() == [1] + [0] * (length - 1)
    assert (rows.lengths <= ASKING[kind].longest).all()
    assert (rows.lengths > 0).all()


def test_the_text_is_read_once() -> None:
    """With the text before the guideline, a row is a text and the ends of its questions, not as many texts as harms."""
    asker = asking(max_tokens=1000)
    rows = asker.read(["ask " * 300], roles=["prompt"], prompts=[None])
    short = asker.read(["ask"], roles=["prompt"], prompts=[None])
    assert 299 <= rows.lengths[0] - short.lengths[0] <= 2 * 299


def test_head_and_tail_are_kept() -> None:
    """A text beyond max_tokens loses its middle, says so, and fills the question to the last token."""
    text = f"fox {'a ' * 250}{'x ' * 250}dog"
    for role in ("prompt", "output"):
        rows = ASKING["gemma"].read([text, "fox"], roles=[role] * 2, prompts=[None] * 2)
        assert rows.cut.tolist() == [True, False]
        asked = ASKING["gemma"].each(text, role=role)
        assert max(map(len, asked)) == 160
        for question in asked:
            found = said(question)
            assert ": fox a a" in found
            assert "x x dog\n" in found
            # ` a` is one token, ` x` are two; a few belong to the template.
            assert abs(found.count(" a") - 2 * found.count(" x")) < 10


def test_the_response_is_kept_before_the_prompt() -> None:
    """Too long together, the prompt is cut to a quarter of the room first, and only the judged text's cut is said."""
    prompt, text = "fox " * 300, "dog " * 15
    rows = ASKING["gemma"].read([text, text * 9], roles=["output"] * 2, prompts=[prompt] * 2)
    assert rows.cut.tolist() == [False, True]
    asked = ASKING["gemma"].each(text, role="output", prompt=prompt)
    assert max(map(len, asked)) == 160
    first = said(asked[0])
    assert first.count("dog") == 15
    assert 0 < first.count("fox") < 100
    second = said(ASKING["gemma"].each(text * 9, role="output", prompt=prompt)[0])
    tokens = second.count("dog") * len(ASKING["gemma"]._tokenizer.encode(" dog", first=False).ids)
    assert tokens > 2.5 * second.count("fox") > 0


def test_a_text_of_a_megabyte_is_cut_before_it_is_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a huge text only as many characters as could be read are tokenised, half from each end."""
    seen: list[int] = []
    asker = asking()
    real = asker._tokenizer.encode

    def watch(text: str, *, first: bool) -> Encoded:
        seen.append(len(text))
        return real(text, first=first)

    monkeypatch.setattr(asker._tokenizer, "encode", watch)
    rows = asker.read([" " * 1_000_000 + "dog"], roles=["prompt"], prompts=[None])
    assert rows.cut.tolist() == [True]
    assert max(seen) < 160 * 8 + 100


def test_no_text_gives_no_rows() -> None:
    """An empty batch has arrays of the usual dtypes."""
    rows = ASKING["gemma"].read([], roles=[], prompts=[])
    assert rows.lengths.shape == (0,)
    assert rows.tokens.dtype == np.int64


def test_a_text_that_grows_beyond_all_measure_has_no_row() -> None:
    """A row longer than any that was measured is left empty, so that no call is larger than was tried."""
    asker = asking()
    asker.longest = 100
    assert asker.read(["ask " * 90, "x"], roles=["prompt"] * 2, prompts=[None] * 2).lengths[0] == 0


def test_yes_is_another_token_after_a_space() -> None:
    """`Yes` and ` Yes` are different tokens, each found right after the template's last characters [S01]."""
    tokenizer = PlainTokenizer(tokenizer_of("gemma"))
    names = Tokenizer.from_buffer(tokenizer_of("gemma"))
    assert find_answer(tokenizer, PROMPT, "Yes") == names.token_to_id("Yes")
    assert find_answer(tokenizer, PROMPT, " Yes") == names.token_to_id("▁Yes")
    assert names.token_to_id("Yes") != names.token_to_id("▁Yes")
    assert find_answer(tokenizer, f"{PROMPT.rstrip()}{TURN}", "Yes") == names.token_to_id("Yes")


@pytest.mark.parametrize(
    ("ending", "answer"), [("model ", "Yes"), ("model\n", "\nYes"), ("model\n", "Yes!"), ("model\n", END_TURN)]
)
def test_an_answer_that_is_not_one_token_there_is_refused(ending: str, answer: str) -> None:
    """An answer that melts into the template's end, or is several tokens, cannot be asked for."""
    with pytest.raises(BundleError, match=r"is not one token of its own right after the template's last characters"):
        find_answer(PlainTokenizer(tokenizer_of("gemma")), f"{PROMPT.removesuffix(chr(10))}{ending}", answer)


def test_answers_of_another_tokenizer_are_refused_at_load() -> None:
    """Where the tokens of the answers are not those that the bundle names, its parts do not belong together."""
    with pytest.raises(BundleError, match=r"the answer 'Yes' is token \d+ after the prompt template, the bundle says"):
        QuestionTokenizer(tokenizer_of("bytes"), templates_of("gemma"), harms=HARMS, max_tokens=160)


@pytest.mark.parametrize("before", ["", " \n"])
def test_a_second_beginning_is_refused(before: str) -> None:
    """A template that begins with the token that the tokenizer puts first by itself would begin twice."""
    changed = questions_yaml()["prompt"] | {"template": before + BEGIN + PROMPT}
    with pytest.raises(BundleError, match=r"begins with <bos>, which the tokenizer puts before every text"):
        asking(prompt=changed)


def test_rows_beyond_measure_are_refused() -> None:
    """Guidelines before a long text make rows of as many texts as there are harms; too many tokens are refused."""
    template = f"{TURN}{{guideline}}{END_TURN}{TURN}{{user}}{END_TURN}Begin with Yes or No\n"
    changed = questions_yaml()["prompt"] | {"template": template}
    assert asking(prompt=changed, max_tokens=1000).longest > 2500
    with pytest.raises(BundleError, match=r"4096 are allowed: put the text before the guideline"):
        asking(prompt=changed, max_tokens=4000)


def test_a_tokenizer_that_lets_texts_write_control_tokens_is_refused() -> None:
    """Where a control token's name is a piece like any other, its characters are the token: such is refused."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "Yes": 1, "No": 2, "[END]": 3}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[END]"])
    with pytest.raises(BundleError, match=r"reads the characters '\[END\]' as the control token"):
        PlainTokenizer(tokenizer.to_str().encode())


def test_a_control_token_swallows_the_space_beside_it() -> None:
    """White space next to a control token that swallows it is not read in a template, as the tokenizer has it."""
    tokenizer = Tokenizer.from_buffer(tokenizer_of("bytes"))
    tokenizer.add_special_tokens([AddedToken("<end>", special=True, rstrip=True, lstrip=True, normalized=False)])
    plain = PlainTokenizer(tokenizer.to_str().encode())
    text = "How \n<end>\n do <end>I?"
    asked: list[int] = []
    for at, (before, control) in enumerate(plain.split(text)):
        asked += plain.encode(before, first=at == 0).ids + ([] if control is None else [control])
    assert asked == tokenizer.encode(text, add_special_tokens=False).ids


def _family(template: str, **guidelines: str) -> dict[str, Any]:
    return {"template": template, "guidelines": guidelines or dict.fromkeys(HARMS, "None.")}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"prompt": _family("{user} {user} {guideline} so")}, r"\{user\} is in it 2 times, it is filled in once"),
        ({"prompt": _family("{user} so")}, r"\{guideline\} is in it 0 times"),
        ({"prompt": _family("{user} {guideline} {response} so")}, r"\{response\} is nothing that is filled in here"),
        ({"prompt": _family("{user} {guideline} {} so")}, r"\{\} is nothing that is filled in here"),
        ({"response": _family("{user} {guideline} so")}, r"\{response\} is in it 0 times"),
        ({"prompt": _family("{guideline} {user}")}, r"it ends with \{user\}"),
        ({"prompt": _family(PROMPT, hate="{user}!")}, r"nothing is filled in within a guideline"),
        ({"prompt": _family(PROMPT, hate="None.")}, r"only one has it for dangerous, sexual"),
        ({"prompt": None, "response": None}, r"needs a family of questions"),
    ],
)
def test_templates_that_ask_something_else_are_refused(changes: dict[str, Any], complaint: str) -> None:
    """Slots that are missing, twice, unknown or last, and families of different harms, are refused by name."""
    with pytest.raises(ValueError, match=complaint):
        templates_of(**changes)


def test_templates_are_about_the_harms_and_roles_of_their_bundle() -> None:
    """Guidelines for other harms than the manifest's, or no questions for a role of it, are refused."""
    content = templates_of(prompt=None).model_dump_json(exclude_none=True).encode()
    assert parse_templates(content, harms=HARMS, roles=["output", "post"], name="t").prompt is None
    with pytest.raises(
        BundleError, match=r"t has guidelines for dangerous, hate, sexual, its manifest has the harms hate"
    ):
        parse_templates(content, harms=["hate"], roles=["post"], name="t")
    with pytest.raises(BundleError, match=r"t has no questions for content of role prompt"):
        parse_templates(content, harms=HARMS, roles=["prompt"], name="t")


def test_both_layouts_that_are_published_can_be_written() -> None:
    """The response may come before the guideline or after it; what is asked differs, and nothing else."""
    after = RESPONSE.replace("Answer: {response}\n", "").replace("Begin with", "Answer: {response}\nBegin with")
    asker = asking(response=questions_yaml()["response"] | {"template": after})
    question = said(asker.each("fox", role="post")[0])
    assert 0 < question.index("Guideline") < question.index("Answer: fox")


def test_a_text_that_the_tokenizer_fails_on_is_a_row_without_tokens() -> None:
    """Where a rule panics on a text or its prompt, only that text is not asked about, and it is said why."""
    tokenizer = Tokenizer.from_buffer(tokenizer_of("gemma"))
    rule = normalizers.Replace(Regex(r"(\x{449}+)+$"), "")
    tokenizer.normalizer = normalizers.Sequence([rule, tokenizer.normalizer])
    unlucky = QuestionTokenizer(tokenizer.to_str().encode(), templates_of("gemma"), harms=HARMS, max_tokens=160)
    panic = "\u0449" * 40 + "!"
    rows = unlucky.read(
        ["Yes", panic, "No", "Yes"], roles=["post", "prompt", "output", "output"], prompts=[None, None, "a", panic]
    )
    assert (rows.lengths == 0).tolist() == [False, True, False, True]
    assert (
        rows.tokens.tolist()
        == unlucky.read(["Yes", "No"], roles=["post", "output"], prompts=[None, "a"]).tokens.tolist()
    )
    assert list(rows.failures) == [1, 3]
    assert "Regex search error" in str(rows.failures[3])
