"""A text, its role and what it answers in; the one text that the tokenizer sees out. Training and serving share it."""

from __future__ import annotations

from collections.abc import Sequence

from stream.bundle.manifest import TextForm

__all__ = ["PLAIN", "compose"]

PLAIN = TextForm()
"""The text alone."""


def compose(form: TextForm, texts: Sequence[str], *, roles: Sequence[str], prompts: Sequence[str | None]) -> list[str]:
    """The n texts as the model reads them, with the role and the prompt of each.

    >>> form = TextForm(lead={"output": "answer: "}, prompt_characters=5, prompt_end=" | ")
    >>> compose(form, ["Yes.", "Yes."], roles=["output", "post"], prompts=["Is it?", None])
    ['answer: s it? | Yes.', 'Yes.']
    """
    if form == PLAIN:
        return list(texts)
    leads = {str(role): lead for role, lead in form.lead.items()}
    return [
        leads.get(role, "") + _read(form, prompt) + text
        for role, text, prompt in zip(roles, texts, prompts, strict=True)
    ]


def _read(form: TextForm, prompt: str | None) -> str:
    return prompt[-form.prompt_characters :] + form.prompt_end if prompt and form.prompt_characters else ""
