"""Texts in, the questions about them out: one row of tokens for each text, all of its harms asked in it [S01].

The questions about one text differ only from the guideline on. What comes before is written once, as tokens marked 1;
then comes the rest of each question, marked 2 for the first harm, 3 for the second and so on. The model lets a token
see those marked 1 and those of its own mark, so that it reads each question as if it were alone, and reads the text
once. Zero is padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.bundle.questions import FAMILIES, FAMILY_OF, Family, FamilyName, Templates, pieces
from stream.errors import BundleError
from stream.scoring.batching import MicroBatch
from stream.scoring.tokenize import MAX_CHARACTERS_PER_TOKEN, ModelInputs, PlainTokenizer, TokenizeError

__all__ = ["SHARED", "QuestionTokenizer", "Questions", "find_answer"]

SHARED: Final = 1
"""Mark of the tokens that belong to every question of a row; the next marks are those of the questions."""

FEWEST_TEXT_TOKENS = 32
"""Room for the text that a template must leave; less than a sentence could not be judged."""

MAX_ROW_TOKENS = 4096
"""Of a whole row, all harms in it. Each head's attention has the square of it, 67 MB of float32, several times."""

SPARE_TOKENS = 16
"""A question may be so much longer than the one measured at load, since a text can merge with what is around it."""

USER_SHARE = 4
"""Where prompt and response are too long together, the prompt keeps at least one part in so many: it is the response
that is judged."""

Pieces = tuple[tuple[str, str], ...]
"""Text before a slot, and the slot's name; the last one's is empty."""


@dataclass(frozen=True, slots=True)
class _Gap:
    """A piece of a question between two control tokens, with slots in it."""

    pieces: Pieces
    first: bool
    """Whether the question begins with it."""


Item = tuple[int, ...] | _Gap
"""Part of a question: tokens that are always the same, or text to be filled in."""


@dataclass(slots=True)
class _Row:
    """One question about one text: its tokens, and from which to which of them each filled-in slot is."""

    ids: list[int] = field(default_factory=list)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    def length(self, slot: str) -> int:
        """Tokens in a slot."""
        start, end = self.spans.get(slot, (0, 0))
        return end - start

    def cut(self, slot: str, *, head: int, tokens: int) -> None:
        """Take `tokens` tokens out of a slot, `head` tokens after its beginning; none that are not the slot's."""
        start = self.spans[slot][0] + head
        tokens = min(tokens, self.length(slot) - head)
        del self.ids[start : start + tokens]
        self.spans = {
            name: (at - tokens if at > start else at, end - tokens if end > start else end)
            for name, (at, end) in self.spans.items()
        }


@dataclass(frozen=True, slots=True)
class Questions:
    """The rows of t texts: `tokens` and `marks` are (k,) int64, of all rows; `lengths` is (t,) int64.

    `cut` is (t,) bool, True where the middle of what is judged was left out. A row without tokens cannot be asked: its
    text became more tokens than any that was measured, or the tokenizer failed on it: `failures` says by its place on
    which, and why.
    """

    tokens: NDArray[np.int64]
    marks: NDArray[np.int64]
    lengths: NDArray[np.int64]
    cut: NDArray[np.bool_]
    failures: Mapping[int, TokenizeError]

    def inputs(self, batch: MicroBatch) -> ModelInputs:
        """The rows of `batch` as one padded call, (n + `batch.idle`, `batch.length`)."""
        ends = np.cumsum(self.lengths)
        ids = np.zeros((len(batch.rows) + batch.idle, batch.length), dtype=np.int64)
        marks = np.zeros_like(ids)
        marks[len(batch.rows) :, 0] = SHARED  # an idle row attends to one token, as a softmax over none is NaN
        for at, row in enumerate(batch.rows.tolist()):
            length = self.lengths[row]
            inside = slice(ends[row] - length, ends[row])
            ids[at, :length], marks[at, :length] = self.tokens[inside], self.marks[inside]
        return ModelInputs(ids, marks)


class QuestionTokenizer:
    """Reads texts as questions, at most `max_tokens` tokens each. Threads may share it."""

    def __init__(self, tokenizer_json: bytes, templates: Templates, *, harms: Sequence[str], max_tokens: int) -> None:
        """`tokenizer_json` must be verified bytes. Raises `BundleError` where tokenizer and templates do not fit."""
        self._tokenizer = PlainTokenizer(tokenizer_json)
        self._max_tokens = max_tokens
        self._max_characters = MAX_CHARACTERS_PER_TOKEN * max_tokens
        self._questions: dict[str, list[list[Item]]] = {}
        for name in FAMILIES:
            if (family := templates.family(name)) is not None:
                self._refuse_second_beginning(family)
                self._questions[name] = [self._compile(family, harm) for harm in harms]
        self._family_of: dict[str, FamilyName] = {
            role: name for role, name in FAMILY_OF.items() if name in self._questions
        }
        self.roles = frozenset(self._family_of)
        """The roles of content that it has questions for."""
        _check_answers(self._tokenizer, templates)
        self.longest = self._measure()
        """Tokens of the longest row that is read."""

    @property
    def largest_id(self) -> int:
        """The largest token id that a row can have; the model's embedding table must reach it."""
        return self._tokenizer.largest_id

    def read(self, texts: Sequence[str], *, roles: Sequence[str], prompts: Sequence[str | None]) -> Questions:
        """Ask about t texts, each of a role in `roles`. No text makes this raise, whatever characters it holds."""
        rows, failures = list[tuple[list[int], list[int], bool]](), dict[int, TokenizeError]()
        for event in zip(texts, roles, prompts, strict=True):
            try:
                questions, cut = self._read(*event)
            except TokenizeError as error:
                failures[len(rows)] = error
                rows.append(([], [], False))
                continue
            tokens, marks = _pack([question.ids for question in questions])
            rows.append((tokens, marks, cut) if len(tokens) <= self.longest else ([], [], cut))
        return Questions(
            tokens=np.array([token for tokens, _, _ in rows for token in tokens], dtype=np.int64),
            marks=np.array([mark for _, marks, _ in rows for mark in marks], dtype=np.int64),
            lengths=np.fromiter((len(tokens) for tokens, _, _ in rows), dtype=np.int64, count=len(rows)),
            cut=np.fromiter((cut for _, _, cut in rows), dtype=np.bool_, count=len(rows)),
            failures=failures,
        )

    def each(self, text: str, *, role: str, prompt: str | None = None) -> list[list[int]]:
        """The tokens of each harm's question about a text by itself, as a model is asked that can do one only."""
        return [question.ids for question in self._read(text, role, prompt)[0]]

    def _read(self, text: str, role: str, prompt: str | None) -> tuple[list[_Row], bool]:
        """Each harm's question, and whether the middle of what is judged was left out."""
        family = self._family_of[role]
        judged = "user" if family == "prompt" else "response"
        values = {"user": prompt or "", judged: text}
        values = {slot: self._ends_of(value) for slot, value in values.items()}
        filled: dict[_Gap, _Row] = {}
        rows = [self._fill(items, values, filled) for items in self._questions[family]]
        cut = self._shorten(rows, judged)
        return rows, cut or len(text) > self._max_characters

    def _ends_of(self, text: str) -> str:
        """Head and tail of a text that is longer than could be read: tokenising all of it would take seconds."""
        half = self._max_characters // 2
        return text if len(text) <= 2 * half else text[:half] + text[-half:]

    def _fill(self, items: Iterable[Item], values: dict[str, str], filled: dict[_Gap, _Row]) -> _Row:
        """One question; what it has in common with another about the same text is looked up in `filled`."""
        row = _Row(list(self._tokenizer.prefix))
        for item in items:
            if isinstance(item, tuple):
                row.ids += item
                continue
            if item not in filled:
                filled[item] = self._fill_gap(item, values)
            at = len(row.ids)
            row.ids += filled[item].ids
            row.spans |= {slot: (at + start, at + end) for slot, (start, end) in filled[item].spans.items()}
        return row

    def _fill_gap(self, gap: _Gap, values: dict[str, str]) -> _Row:
        text = ""
        places: dict[str, tuple[int, int]] = {}
        for before, slot in gap.pieces:
            text += before
            if slot:
                places[slot] = (len(text), len(text) + len(values[slot]))
                text += values[slot]
        encoded = self._tokenizer.encode(text, first=gap.first)
        spans = {}
        for slot, (start, end) in places.items():
            # A token that is half of the template is the template's.
            inside = [at for at, (first, last) in enumerate(encoded.offsets) if start <= first and last <= end]
            spans[slot] = (inside[0], inside[-1] + 1) if inside else (0, 0)
        return _Row(list(encoded.ids), spans)

    def _shorten(self, rows: list[_Row], judged: str) -> bool:
        """Take the middle out of the slots until every question fits, out of the same place in each of them."""
        over = max(len(row.ids) for row in rows) - self._max_tokens
        if over <= 0:
            return False
        tokens = {slot: min(row.length(slot) for row in rows) for slot in ("user", judged)}
        room = max(sum(tokens.values()) - over, 0)
        context = 0 if judged == "user" else min(over, max(tokens["user"] - room // USER_SHARE, 0))
        taken = {"user": context, judged: over - context}
        for slot, count in taken.items():
            for row in rows if count else ():
                row.cut(slot, head=(max(tokens[slot] - count, 0) + 1) // 2, tokens=count)
        return taken[judged] > 0

    def _compile(self, family: Family, harm: str) -> list[Item]:
        """The question about one harm as items, its guideline written in."""
        written = [("", "")]
        for before, slot in pieces(family.template):
            is_guideline = slot == "guideline"
            text = before + (family.guidelines[harm] if is_guideline else "")
            written[-1] = (written[-1][0] + text, "" if is_guideline else slot)
            if slot and not is_guideline:
                written.append(("", ""))
        return list(self._items(written))

    def _items(self, written: list[tuple[str, str]]) -> Iterable[Item]:
        gap: list[tuple[str, str]] = []
        first = True
        for text, slot in written:
            for before, control in self._tokenizer.split(text):
                gap.append((before, slot if control is None else ""))
                if control is not None:
                    yield from self._item(gap, first=first)
                    yield (control,)
                    gap, first = [], False
        yield from self._item(gap, first=first)

    def _item(self, gap: list[tuple[str, str]], *, first: bool) -> Iterable[Item]:
        if any(slot for _, slot in gap):
            yield _Gap(tuple(gap), first)
        elif text := "".join(before for before, _ in gap):
            yield tuple(self._tokenizer.encode(text, first=first).ids)

    def _refuse_second_beginning(self, family: Family) -> None:
        """Raise `BundleError` for a template that begins with the token that the tokenizer puts first anyway."""
        before, control = next(self._tokenizer.split(family.template))
        if not before.strip() and control is not None and control in self._tokenizer.prefix:
            name = next(name for name, token in self._tokenizer.controls.items() if token == control)
            raise BundleError(
                f"a template begins with {name}, which the tokenizer puts before every text by itself, so the model "
                "would read it twice: leave it out of the template"
            )

    def _measure(self) -> int:
        """The length of the longest row. Raises `BundleError` where there is little room for a text, or rows are huge.

        The longest row is that of a text which fills its question: of a longer one, the middle is cut.
        """
        longest = 0
        for role in sorted(self.roles):
            least = max(len(question) for question in self.each("", role=role))
            if least + FEWEST_TEXT_TOKENS > self._max_tokens:
                raise BundleError(
                    f"a question about content of role {role} has {least} tokens without any text, of max_tokens "
                    f"{self._max_tokens}: shorten the template, or raise max_tokens"
                )
            long = "a " * self._max_characters
            for prompt in (None, long):
                tokens, _ = _pack(self.each(long, role=role, prompt=prompt))
                longest = max(longest, len(tokens))
        longest += SPARE_TOKENS * len(next(iter(self._questions.values())))
        if longest > MAX_ROW_TOKENS:
            raise BundleError(
                f"the questions about one text of {self._max_tokens} tokens make a row of {longest}, {MAX_ROW_TOKENS} "
                "are allowed: put the text before the guideline, so that it is read once, or lower max_tokens"
            )
        return longest


def find_answer(tokenizer: PlainTokenizer, template: str, answer: str) -> int:
    """The one token that `answer` is right after a template, its slots filled in by an ordinary word.

    Raises `BundleError` where it is several tokens there, or changes those before it: ` Yes` and `Yes` differ.
    """
    *before, (tail, _) = tokenizer.split("".join(f"{text}{slot}" for text, slot in pieces(template)))
    bare = tokenizer.encode(tail, first=not before).ids
    answered = tokenizer.encode(tail + answer, first=not before).ids
    added = answered[len(bare) :]
    if answered[: len(bare)] != bare or len(added) != 1:
        raise BundleError(
            f"the answer {answer!a} is not one token of its own right after the template's last characters, "
            f"{template[-12:]!a}: mind spaces and line ends there, or give the answer as the model writes it"
        )
    return added[0]


def _check_answers(tokenizer: PlainTokenizer, templates: Templates) -> None:
    for name in FAMILIES:
        family = templates.family(name)
        if family is None:
            continue
        for answer in (templates.answers.yes, templates.answers.no):
            found = find_answer(tokenizer, family.template, answer.text)
            if found != answer.token:
                raise BundleError(
                    f"the answer {answer.text!a} is token {found} after the {name} template, the bundle says "
                    f"{answer.token}: model, tokenizer and templates do not belong together; import the model again"
                )


def _pack(questions: list[list[int]]) -> tuple[list[int], list[int]]:
    """The tokens and marks of a row: what all questions begin with, but for a last token, and the rest of each."""
    shortest = min(map(len, questions)) - 1
    same = np.array([question[:shortest] for question in questions])
    differs = np.flatnonzero((same != same[0]).any(axis=0))
    shared = int(differs[0]) if len(differs) else shortest
    tokens, marks = questions[0][:shared], [SHARED] * shared
    for at, question in enumerate(questions):
        tokens = tokens + question[shared:]
        marks = marks + [SHARED + 1 + at] * (len(question) - shared)
    return tokens, marks
