"""The template of a chat: how a model was told of roles and turns, written in Jinja by whoever made the folder."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bothways.errors import BothwaysError


def render(template: str, messages: Sequence[Mapping[str, str]], tokens: Mapping[str, Any], where: str) -> str:
    """The text of a conversation, up to where the model's answer begins.

    The template is a stranger's program: it runs in Jinja's sandbox, which reaches nothing but its arguments.

    Args:
        messages: {"role": "user", "content": "..."} and so on.
        tokens: special tokens by the names that templates use, such as "bos_token".
        where: the folder, for messages.
    Raises:
        BothwaysError: the template is broken, tries to leave the sandbox, or refuses the conversation.
    """
    from jinja2 import TemplateError

    for message in messages:
        told = (message.get("role"), message.get("content")) if isinstance(message, Mapping) else (None,)
        if not all(isinstance(one, str) for one in told):
            raise BothwaysError('a message of a chat is written {"role": "user", "content": "..."}')

    def refuse(reason: str) -> None:
        raise TemplateError(reason)

    known = {"raise_exception": refuse, "strftime_now": lambda form: datetime.datetime.now().strftime(form)}
    try:
        return str(_compiled(template).render(messages=[dict(one) for one in messages], **known, **tokens,
                                              add_generation_prompt=True))
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise BothwaysError(f"the chat template of {where} does not take this conversation ({error})") from None


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    """The template ready to be filled in; compiling takes several times as long as filling."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    return environment.from_string(template)
