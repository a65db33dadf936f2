"""Models that only a server has: the OpenAI-compatible protocol, for contenders without weights.

    >>> model = bothways.remote("https://api.example.com/v1", "some-model")
    >>> model.generate("Who reads both ways?")

Only the standard library speaks here. The key goes into one header of requests to this one server, and nowhere else:
redirections are not followed, and no message or `repr` shows it.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, overload

from bothways.errors import BothwaysError

KEY = "BOTHWAYS_API_KEY"
"""The variable of the environment that holds the key, where none is given."""
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Answers that may be different in a while."""
LONGEST_WAIT = 60.0
_LOCAL = ("localhost", "127.0.0.1", "::1")
_MOST = 2 ** 26  # bytes of an answer
_sleep = time.sleep

Messages = Sequence[Mapping[str, str]]
"""A conversation: {"role": "user", "content": "..."} and so on."""


@dataclass(frozen=True)
class Likelihood:
    """What a server says of a text, token by token in its own tokenization.

    tokens: as strings. logprobs: nats each, given all before; the first token of a text has none and is left out.
    characters: how many characters of the text these tokens are.
    """

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    characters: int

    @property
    def nats(self) -> float:
        """Minus the log probability of all tokens together."""
        return -sum(self.logprobs)


class Remote:
    """A model behind a server; made by `remote`."""

    def __init__(self, url: str, model: str, key: str | None = None, *, chat: bool = True, timeout: float = 60.0,
                 retries: int = 4, parallel: int = 4) -> None:
        """See `remote`."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BothwaysError(f"'{parts.hostname or parts.path}' is not the address of a server: write it like "
                                "https://api.example.com/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise BothwaysError(f"the address of the server {parts.hostname} holds more than scheme, host and path: "
                                f"give the key as `key` or in {KEY}")
        if not timeout > 0 or retries < 0 or parallel < 1:
            raise BothwaysError(f"timeout {timeout}, retries {retries} and parallel {parallel} must be above 0, 0 or "
                                "more, and at least 1")
        self.url, self.model, self.chat, self.timeout = url.rstrip("/"), model, chat, timeout
        self.retries, self.parallel = retries, parallel
        self._key = key or os.environ.get(KEY) or ""
        if not self._key.isascii() or not self._key.isprintable():
            raise BothwaysError(f"the key for {parts.hostname} holds a line end or a letter that no key has: "
                                "copy it again")
        self._length = "max_tokens"
        handlers: list[Any] = [_Here()]
        if parts.hostname in _LOCAL:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"Remote({self.model} at {self.url})"

    # --- writing ---

    @overload
    def generate(self, prompt: str | Messages, max_new_tokens: int = ..., *, stream: Literal[True], **options: Any
                 ) -> Iterator[str]: ...
    @overload
    def generate(self, prompt: list[str], max_new_tokens: int = ..., *, stream: Literal[False] = ..., **options: Any
                 ) -> list[str]: ...
    @overload
    def generate(self, prompt: str | Messages, max_new_tokens: int = ..., *, stream: Literal[False] = ...,
                 **options: Any) -> str: ...

    def generate(self, prompt: str | list[str] | Messages, max_new_tokens: int = 64, *, stream: bool = False,
                 system: str | None = None, **options: Any) -> str | list[str] | Iterator[str]:
        """What the model answers (chat) or writes on after the prompt, without the prompt.

        Args:
            prompt: a text, a list of texts (asked `parallel` at a time), or a conversation.
            max_new_tokens: the most tokens of an answer, as the server counts them.
            stream: give pieces of text as they come, for a single prompt.
            system: what a chat is told first.
            options: temperature (0 when left out), top_p, stop, seed and whatever else the server understands.
        Raises:
            BothwaysError: the server cannot be reached, refuses, or answers something else than the protocol says;
                exit code 1.
        """
        several = isinstance(prompt, list) and all(isinstance(one, str) for one in prompt)
        if stream:
            if several:
                raise BothwaysError("one text is streamed at a time: give the prompt as a string")
            return self._streamed(self._asked(prompt, max_new_tokens, system, options))
        if not several:
            return self._answer(self._asked(prompt, max_new_tokens, system, options))
        asked = [self._asked(one, max_new_tokens, system, options) for one in prompt]
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(self._answer, asked))

    # --- scoring ---

    @overload
    def score(self, text: str, after: str = ...) -> Likelihood: ...
    @overload
    def score(self, text: list[str], after: str = ...) -> list[Likelihood]: ...

    def score(self, text: str | list[str], after: str = "") -> Likelihood | list[Likelihood]:
        """How likely the model finds texts, where the server gives log probabilities (`echo` of completions).

        Args:
            after: what stands before each text and is read but not counted.
        Raises:
            BothwaysError: as `generate`; also a server that does not tell, as most that only chat.
        """
        if isinstance(text, str):
            return self._scored(text, after)
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(lambda one: self._scored(one, after), text))

    # --- the protocol ---

    def _asked(self, prompt: Any, length: int, system: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a request."""
        if length < 1:
            raise BothwaysError(f"max_new_tokens is {length}, but at least 1 token is written")
        body: dict[str, Any] = {"model": self.model, self._length: length, "temperature": 0.0, **options}
        if not self.chat:
            if not isinstance(prompt, str) or system is not None:
                raise BothwaysError("a conversation needs a server that chats: leave chat=False out")
            return {**body, "prompt": prompt}
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(one) for one in prompt]
        told = [{"role": "system", "content": system}] if system is not None else []
        return {**body, "messages": [*told, *messages]}

    @property
    def _path(self) -> str:
        return "/chat/completions" if self.chat else "/completions"

    def _answer(self, body: dict[str, Any]) -> str:
        answer = self._json(self._path, body)
        text = _text(_choice(answer), "message")
        if text is None:
            raise self._strange(f"no text in {json.dumps(answer)[:200]}")
        return text

    def _streamed(self, body: dict[str, Any]) -> Iterator[str]:
        """Pieces of text from the server's events, which end with [DONE]."""
        with self._open(self._path, {**body, "stream": True}) as answer:
            finished = False
            try:
                for line in answer:
                    field, _, data = line.decode("utf-8", errors="replace").strip().partition(":")
                    if field != "data":
                        continue
                    if data.strip() == "[DONE]":
                        return
                    event = self._parsed(data)
                    if "error" in event:
                        raise self._strange(_reason(json.dumps(event)))
                    choice = _choice(event)
                    finished = finished or bool(choice.get("finish_reason"))
                    piece = _text(choice, "delta")
                    if piece:
                        yield piece
            except (OSError, http.client.HTTPException) as error:
                raise self._strange(f"the answer broke off ({_words(error)})") from None
            if not finished:
                raise self._strange("the answer broke off before its end")

    def _scored(self, text: str, after: str) -> Likelihood:
        body = {"model": self.model, "prompt": after + text, "max_tokens": 0, "echo": True, "logprobs": 0,
                "temperature": 0.0}
        told = _choice(self._json("/completions", body)).get("logprobs")
        named = ("tokens", "token_logprobs", "text_offset")
        if not isinstance(told, dict) or not all(isinstance(told.get(name), list) for name in named):
            raise BothwaysError(f"{self.url} does not give log probabilities of a text it is shown (echo and logprobs "
                                "of /completions): this model can write but not score")
        begins = [*told["text_offset"], len(after) + len(text)]
        counted = [i for i, (logprob, begin, end) in enumerate(zip(told["token_logprobs"], begins, begins[1:]))
                   if logprob is not None and end > len(after) and begin < len(after) + len(text)]
        return Likelihood(tuple(str(told["tokens"][i]) for i in counted),
                          tuple(float(told["token_logprobs"][i]) for i in counted),
                          sum(begins[i + 1] - max(begins[i], len(after)) for i in counted))

    # --- the wire ---

    def _json(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._open(path, body) as answer:
            try:
                raw = answer.read(_MOST)
            except (OSError, http.client.HTTPException) as error:
                raise self._strange(f"the answer broke off ({_words(error)})") from None
        return self._parsed(raw.decode("utf-8", errors="replace"))

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            raise self._strange(f"'{text[:80]}' is not JSON") from None
        if not isinstance(data, dict):
            raise self._strange(f"'{text[:80]}' is not an object")
        return data

    def _open(self, path: str, body: dict[str, Any]) -> Any:
        """The server's answer, asked for again with growing waits while it is busy or cannot be reached."""
        for attempt in range(self.retries + 1):
            headers = {"Content-Type": "application/json", "User-Agent": "bothways"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
            wait = min(LONGEST_WAIT, 2.0 ** attempt) * random.uniform(0.5, 1.0)
            try:
                return self._opener.open(request, timeout=self.timeout)
            except urllib.error.HTTPError as error:
                reason = _reason(error.read(_MOST).decode("utf-8", errors="replace"))
                error.close()
                if error.code == 400 and "max_completion_tokens" in reason and "max_tokens" in body:
                    # the newer name of the same number, which some models insist on
                    self._length = "max_completion_tokens"
                    return self._open(path, {self._length if name == "max_tokens" else name: one
                                             for name, one in body.items()})
                if error.code not in AGAIN:
                    raise self._refused(error.code, reason) from None
                failure = f"answers {error.code}{reason}"
                wait = _told_to_wait(error.headers.get("Retry-After"), wait)
            except (OSError, http.client.HTTPException) as error:
                failure = f"cannot be reached ({_words(error)})"
            if attempt < self.retries:
                _sleep(wait)
        raise BothwaysError(self._without_key(f"{self.url} {failure}, after {self.retries + 1} "
                                              f"attempt{'s' * bool(self.retries)}: try again later"), exit_code=1)

    def _refused(self, code: int, reason: str) -> BothwaysError:
        """The error for an answer that will not change by asking again."""
        advice = {401: f"check the key (argument `key` or {KEY})", 403: "check what the key may do",
                  404: f"check the address and the model '{self.model}'", 413: "shorten the prompt"}
        redirected = "it sends elsewhere, and is not followed with a key: give the address it names"
        what = redirected if 300 <= code < 400 else advice.get(code, "change the call")
        return BothwaysError(self._without_key(f"{self.url} refuses with {code}{reason}: {what}"), exit_code=1)

    def _strange(self, what: str) -> BothwaysError:
        return BothwaysError(self._without_key(f"{self.url} does not answer as the protocol says: {what}"), exit_code=1)

    def _without_key(self, sentence: str) -> str:
        return sentence.replace(self._key, "(the key)") if self._key else sentence


def remote(url: str, model: str, key: str | None = None, *, chat: bool = True, timeout: float = 60.0, retries: int = 4,
           parallel: int = 4) -> Remote:
    """A model behind an OpenAI-compatible server, as a contender that has no weights here.

    Args:
        url: the address that ends before /chat/completions, such as https://api.example.com/v1.
        model: its name there.
        key: taken from the environment (BOTHWAYS_API_KEY) when none; a server on this machine may need none.
        chat: ask by conversation; false for servers that only write on (/completions).
        timeout: seconds without a byte before a request counts as failed.
        retries: how often a request is repeated while the server is busy (429, 5xx) or out of reach; waits double.
        parallel: requests at a time for a list of texts.
    Raises:
        BothwaysError: no address of a server.
    """
    return Remote(url, model, key, chat=chat, timeout=timeout, retries=retries, parallel=parallel)


class _Here(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the key is for one server."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, dict) else {}


def _text(choice: Mapping[str, Any], kind: str) -> str | None:
    """The text of a choice: of its message (or delta) in a chat, else its own."""
    told = choice.get(kind)
    text = told.get("content") if isinstance(told, dict) else choice.get("text")
    return text if isinstance(text, str) else None


def _reason(body: str) -> str:
    """The sentence in the body of an error, as the end of ours."""
    try:
        told = json.loads(body)
        error = told.get("error", told.get("detail", told.get("message"))) if isinstance(told, dict) else None
        words = error.get("message") if isinstance(error, dict) else error
    except (json.JSONDecodeError, RecursionError):
        words = None
    return f" ({' '.join(str(words).split())[:300]})" if words else ""


def _told_to_wait(header: str | None, usual: float) -> float:
    """Seconds that a server asks for, within reason."""
    try:
        return min(LONGEST_WAIT, max(0.0, float(header or "")))
    except ValueError:
        return usual


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)
