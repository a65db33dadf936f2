"""Remote contenders against a server on this machine, which the test starts and which fails in every way it can."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import bothways
from bothways.errors import BothwaysError
from bothways.families import remote as module

KEY = "sk-very-secret-0123"
Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Plays a list of answers, one a request (the last again and again), and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer | Callable[[dict[str, Any]], Answer]] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.asked.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.paths.append(self.path)
                    answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                status, headers, content = answer(body) if callable(answer) else answer
                if status == 0:
                    self.connection.close()
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # who has left hears nothing
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.delenv(module.KEY, raising=False)
    seen: list[float] = []
    monkeypatch.setattr(module, "_sleep", seen.append)
    return seen


@pytest.fixture
def server(waits: list[float]) -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()
    running.thread.join()


def said(text: str) -> Answer:
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def error(status: int, message: str, **headers: str) -> Answer:
    return status, headers, json.dumps({"error": {"message": message}}).encode()


def test_a_chat(server: Server) -> None:
    server.answers = [said("Paris.")]
    model = bothways.remote(server.url + "/", "large", KEY)
    assert model.generate("Capital of France?", max_new_tokens=7, system="Be brief.", stop=["\n"]) == "Paris."
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.asked[0] == {
        "model": "large", "max_tokens": 7, "temperature": 0.0, "stop": ["\n"],
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of France?"}]}


def test_a_conversation_is_sent_as_it_is(server: Server) -> None:
    server.answers = [said("Rome.")]
    turns = [{"role": "user", "content": "France?"}, {"role": "assistant", "content": "Paris."},
             {"role": "user", "content": "Italy?"}]
    assert bothways.remote(server.url, "large").generate(turns, temperature=0.5) == "Rome."
    assert server.asked[0]["messages"] == turns
    assert server.asked[0]["temperature"] == 0.5
    assert "Authorization" not in server.headers[0]


def test_completions_and_many_prompts_in_order(server: Server) -> None:
    server.answers = [lambda body: (200, {}, json.dumps({"choices": [{"text": body["prompt"].upper()}]}).encode())]
    model = bothways.remote(server.url, "small", chat=False, parallel=3)
    assert model.generate("once") == "ONCE"
    assert model.generate([f"p{i}" for i in range(12)]) == [f"P{i}" for i in range(12)]
    assert set(server.paths) == {"/v1/completions"}
    with pytest.raises(BothwaysError, match="a conversation needs a server that chats"):
        model.generate([{"role": "user", "content": "x"}])


def events(*data: object) -> bytes:
    lines = [one if isinstance(one, str) else "data: " + json.dumps(one) for one in data]
    return ("\n\n".join(lines) + "\n\n").encode()


def delta(text: str | None, reason: str | None = None) -> dict[str, object]:
    return {"choices": [{"delta": {} if text is None else {"content": text}, "finish_reason": reason}]}


def test_streams(server: Server) -> None:
    server.answers = [(200, {}, events(": ping", delta(""), delta("Gr"), delta("üß"), delta(None, "stop"),
                                       {"choices": [], "usage": {}}, "data: [DONE]", delta("never")))]
    model = bothways.remote(server.url, "large")
    assert list(model.generate("Hello", stream=True)) == ["Gr", "üß"]
    assert server.asked[0]["stream"] is True
    last = {"choices": [{"text": "", "finish_reason": "length"}]}
    server.answers = [(200, {}, events({"choices": [{"text": "on"}]}, last))]
    assert list(bothways.remote(server.url, "large", chat=False).generate("go ", stream=True)) == ["on"]


def test_a_stream_that_breaks_off(server: Server) -> None:
    model = bothways.remote(server.url, "large")
    server.answers = [(200, {}, events(delta("Gr")))]
    stream = model.generate("Hello", stream=True)
    assert next(stream) == "Gr"
    with pytest.raises(BothwaysError, match="the answer broke off before its end"):
        next(stream)
    server.answers = [(200, {}, events(delta("Gr"), {"error": {"message": "out of memory"}}))]
    with pytest.raises(BothwaysError, match="out of memory"):
        list(model.generate("Hello", stream=True))
    server.answers = [(200, {}, events("data: {"))]
    with pytest.raises(BothwaysError, match="is not JSON"):
        list(model.generate("Hello", stream=True))
    with pytest.raises(BothwaysError, match="one text is streamed at a time"):
        model.generate(["a", "b"], stream=True)  # type: ignore[call-overload]


def test_a_busy_server_is_asked_again_with_growing_waits(server: Server, waits: list[float]) -> None:
    server.answers = [error(503, "loading"), error(500, "oops"), (0, {}, b""), error(429, "slow down"), said("yes")]
    assert bothways.remote(server.url, "large").generate("?") == "yes"
    assert len(server.asked) == 5
    for attempt, wait in enumerate(waits):
        assert 0.5 * 2**attempt <= wait <= 2**attempt
    assert len(waits) == 4


def test_a_server_says_how_long_to_wait(server: Server, waits: list[float]) -> None:
    server.answers = [error(429, "slow", **{"Retry-After": "7"}), error(429, "slow", **{"Retry-After": "99999"}),
                      said("yes")]
    assert bothways.remote(server.url, "large").generate("?") == "yes"
    assert waits == [7.0, module.LONGEST_WAIT]


def test_a_server_that_stays_busy(server: Server, waits: list[float]) -> None:
    server.answers = [error(429, f"quota of {KEY} is used up")]
    words = r"answers 429 \(quota of \(the key\) is used up\), after 3 attempts"
    with pytest.raises(BothwaysError, match=words) as caught:
        bothways.remote(server.url, "large", KEY, retries=2).generate("?")
    assert caught.value.exit_code == 1
    assert KEY not in str(caught.value)
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "check the key"), (403, "what the key may do"), (404, "check the address and the model 'large'"),
     (400, "change the call"), (302, "is not followed with a key")],
)
def test_a_refusal_is_final(server: Server, waits: list[float], status: int, advice: str) -> None:
    headers = {"Location": server.url + "/elsewhere"} if status == 302 else {}
    server.answers = [error(status, f"bad key {KEY}", **headers)]
    with pytest.raises(BothwaysError, match=advice) as caught:
        bothways.remote(server.url, "large", KEY).generate("?")
    assert KEY not in str(caught.value)
    assert len(server.asked) == 1
    assert not waits


def test_the_newer_name_of_the_length(server: Server) -> None:
    server.answers = [error(400, "Unsupported parameter: use 'max_completion_tokens' instead"), said("yes")]
    model = bothways.remote(server.url, "large", retries=0)
    assert model.generate("?", max_new_tokens=5) == "yes"
    assert server.asked[1]["max_completion_tokens"] == 5 and "max_tokens" not in server.asked[1]
    assert model.generate("?") == "yes"
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"<html>", "'<html>' is not JSON"), (b"[1]", "is not an object"), (b"{}", "no text in {}"),
     (b'{"choices": [{"message": {"content": null}}]}', "no text in")],
)
def test_answers_that_are_none(server: Server, content: bytes, what: str) -> None:
    server.answers = [(200, {}, content)]
    with pytest.raises(BothwaysError, match=f"does not answer as the protocol says: .*{what}"):
        bothways.remote(server.url, "large").generate("?")


def test_an_answer_that_is_cut_short(server: Server) -> None:
    server.answers = [(200, {"Content-Length": "1000"}, b'{"choices": [')]
    with pytest.raises(BothwaysError, match=r"the answer broke off|is not JSON"):
        bothways.remote(server.url, "large").generate("?")


def test_nobody_there(waits: list[float]) -> None:
    words = r"127.0.0.1:9/v1 cannot be reached \(Connection refused\), after 2 attempts"
    with pytest.raises(BothwaysError, match=words):
        bothways.remote("http://127.0.0.1:9/v1", "large", retries=1).generate("?")


def test_too_slow(server: Server) -> None:
    free = threading.Event()

    def late(_: object) -> Answer:
        free.wait(5)
        return said("late")

    server.answers = [late]
    try:
        with pytest.raises(BothwaysError, match=r"cannot be reached .*timed out"):
            bothways.remote(server.url, "large", timeout=0.1, retries=0).generate("?")
    finally:
        free.set()


def scored(body: dict[str, Any]) -> Answer:
    """A server whose tokens are characters, each as likely as its place says."""
    text = body["prompt"]
    told = {"tokens": list(text), "token_logprobs": [None, *(-float(i) for i in range(1, len(text)))],
            "text_offset": list(range(len(text)))}
    return 200, {}, json.dumps({"choices": [{"text": text, "logprobs": told}]}).encode()


def test_scores(server: Server) -> None:
    server.answers = [scored]
    model = bothways.remote(server.url, "large", chat=False)
    whole = model.score("abcd")
    assert whole.tokens == ("b", "c", "d") and whole.logprobs == (-1.0, -2.0, -3.0)
    assert (whole.nats, whole.characters) == (6.0, 3)
    rest = model.score(["cd", "xyz"], after="ab")
    assert [one.tokens for one in rest] == [("c", "d"), ("x", "y", "z")]
    assert [one.nats for one in rest] == [5.0, 9.0]
    assert server.asked[0] == {"model": "large", "prompt": "abcd", "max_tokens": 0, "echo": True, "logprobs": 0,
                               "temperature": 0.0}
    assert server.paths[0] == "/v1/completions"


def test_a_server_that_does_not_score(server: Server) -> None:
    server.answers = [(200, {}, b'{"choices": [{"text": "x", "logprobs": null}]}')]
    with pytest.raises(BothwaysError, match="this model can write but not score"):
        bothways.remote(server.url, "large").score("abc")


def test_the_key_comes_from_the_environment_and_is_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.KEY, KEY)
    server.answers = [said("yes")]
    model = bothways.remote(server.url, "large")
    model.generate("?")
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(model)


@pytest.mark.parametrize(
    ("url", "what"),
    [("ftp://example.com", "is not the address of a server"), ("example.com/v1", "is not the address of a server"),
     (f"https://me:{KEY}@example.com/v1", "holds more than scheme, host and path"),
     (f"https://example.com/v1?key={KEY}", "holds more than scheme, host and path")],
)
def test_addresses_that_are_none(url: str, what: str) -> None:
    with pytest.raises(BothwaysError, match=what) as caught:
        bothways.remote(url, "large")
    assert KEY not in str(caught.value)


def test_a_key_with_a_line_end(server: Server) -> None:
    with pytest.raises(BothwaysError, match="copy it again") as caught:
        bothways.remote(server.url, "large", KEY + "\nX-Other: 1")
    assert KEY not in str(caught.value)
