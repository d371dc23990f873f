"""Use the official Python client of the OpenAI API against a running Penstock.

Usage: check.py BASE_URL FAULTS_URL
"""

import asyncio
import http.server
import json
import queue
import sys
import threading
import urllib.request
import uuid

import httpx
import openai
from openai.types.webhooks import BatchCompletedWebhookEvent, ResponseCompletedWebhookEvent
from rig import BASE, Engine, Lossy, ask, client, expect, run

engine = Engine(sys.argv[2])
CHAT, EMBED = "sim-chat", "sim-embed"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}}]


def chat() -> None:
    raw = client().chat.completions.with_raw_response.create(model=CHAT, messages=ask("hello"), max_tokens=5, n=2, user="somebody")
    answer = raw.parse()
    assert [c.index for c in answer.choices] == [0, 1]
    assert answer.choices[0].message.role == "assistant" and len(answer.choices[0].message.content.split()) == 5
    assert answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens == 10
    assert answer.object == "chat.completion" and answer.model == CHAT
    assert raw.headers["x-task-id"].startswith("task_") and raw.headers["x-request-id"]
    assert raw.headers["x-penstock-ignored"] == "user"
    assert answer._request_id == raw.headers["x-request-id"]


def chat_stream() -> None:
    whole = client().chat.completions.create(model=CHAT, messages=ask("a story"), max_tokens=12).choices[0].message.content
    text, finish, usage = "", None, None
    for chunk in client().chat.completions.create(
        model=CHAT, messages=ask("a story"), max_tokens=12, stream=True, stream_options={"include_usage": True}
    ):
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert text == whole and finish == "stop" and usage.completion_tokens == 12, (text, whole, finish, usage)


def stream_helper() -> None:
    with client().chat.completions.stream(model=CHAT, messages=ask("helped"), max_tokens=4) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert len(final.choices[0].message.content.split()) == 4


def heartbeats() -> None:
    """A comment in one line is all that may come between events."""
    with engine.fault(match="sleepy", action="slow", delay="700ms"):
        chunks = list(client(timeout=1.0).chat.completions.create(model=CHAT, messages=ask("sleepy"), max_tokens=3, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"


def asynchronous() -> None:
    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=BASE + "/v1", api_key="any") as c:
            answers = await asyncio.gather(*(c.chat.completions.create(model=CHAT, messages=ask(f"number {i}"), max_tokens=3) for i in range(20)))
            return [a.choices[0].message.content for a in answers]

    assert all(len(text.split()) == 3 for text in asyncio.run(run()))


def tools() -> None:
    call = client().chat.completions.create(model=CHAT, messages=ask("weather?"), tools=TOOLS, max_tokens=3).choices[0]
    assert call.finish_reason == "tool_calls" and call.message.tool_calls[0].function.name == "weather"
    whole = call.message.tool_calls[0].function.arguments
    assert "text" in json.loads(whole)
    name, arguments, finish = "", "", None
    for chunk in client().chat.completions.create(model=CHAT, messages=ask("weather?"), tools=TOOLS, max_tokens=3, stream=True):
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for piece in choice.delta.tool_calls or []:
                name += piece.function.name or ""
                arguments += piece.function.arguments or ""
    assert (name, arguments, finish) == ("weather", whole, "tool_calls"), (name, arguments, finish)
    said = ask("weather?") + [call.message, {"role": "tool", "tool_call_id": call.message.tool_calls[0].id, "content": "rain"}]
    assert client().chat.completions.create(model=CHAT, messages=said, tools=TOOLS, max_tokens=3).choices[0].message.content


def sessions() -> None:
    """A call with the memory of its session is answered as one that brings all that was said."""
    talk = {"model": CHAT, "max_tokens": 5, "extra_body": {"session_id": f"sdk {uuid.uuid4()}", "memory": True}}
    said = ask("one")
    said.append(client().chat.completions.create(messages=said, **talk).choices[0].message.to_dict(exclude_unset=True))
    stream = client().chat.completions.create(messages=ask("two"), stream=True, **talk)
    text = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
    whole = [{"role": m["role"], "content": m["content"]} for m in said] + ask("two")
    assert text == client().chat.completions.create(model=CHAT, max_tokens=5, messages=whole).choices[0].message.content


def completions() -> None:
    answer = client().completions.create(model=CHAT, prompt=["one", "two"], n=2, max_tokens=3)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3] and len({c.text for c in answer.choices}) == 4
    texts = ["", "", "", ""]
    for chunk in client().completions.create(model=CHAT, prompt=["one", "two"], n=2, max_tokens=3, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [c.text for c in answer.choices]
    assert client().completions.create(model=CHAT, prompt=[1, 2, 3], max_tokens=2).choices[0].text


def embeddings() -> None:
    plain = client().embeddings.create(model=EMBED, input=["a", "b"], encoding_format="float")
    packed = client().embeddings.create(model=EMBED, input=["a", "b"])  # base64 on the wire
    assert [len(d.embedding) for d in plain.data] == [64, 64] and plain.usage.prompt_tokens == 2
    for one, other in zip(plain.data, packed.data):
        assert max(abs(x - y) for x, y in zip(one.embedding, other.embedding)) < 1e-6
    assert len(client().embeddings.create(model=EMBED, input=[[1, 2], [3]]).data) == 2


def models() -> None:
    assert [m.id for m in client().models.list()] == [CHAT, EMBED]
    assert client().models.retrieve(CHAT).id == CHAT


def errors() -> None:
    c = client(max_retries=0)
    e = expect(openai.NotFoundError, lambda: c.chat.completions.create(model="nobody", messages=ask("x")), "model_not_found")
    assert e.param == "model" and e.type == "invalid_request_error"
    e = expect(openai.BadRequestError, lambda: c.chat.completions.create(model=CHAT, messages=[]))
    assert e.param == "messages"
    expect(openai.NotFoundError, lambda: c.models.retrieve("nobody"), "model_not_found")
    with engine.fault(match="refused", status=422):
        expect(openai.UnprocessableEntityError, lambda: c.chat.completions.create(model=CHAT, messages=ask("refused")), "rejected")


def late() -> None:
    """One slow task stays one: the client is told before it gives up, and does not retry."""
    with engine.fault(match="too slow", action="slow", delay="3s"):
        before = engine.executions()["total"]
        e = expect(openai.InternalServerError, lambda: client(timeout=1.0).chat.completions.create(model=CHAT, messages=ask("too slow")))
        assert e.status_code == 504 and e.response.headers["x-task-id"].startswith("task_")
        assert engine.executions()["total"] == before + 1


def retries() -> None:
    """A client whose connection is lost retries, and the task runs once."""
    with engine.fault(match="lossy", action="slow", delay="2s"):
        before = engine.executions()["total"]
        c = client(http_client=httpx.Client(transport=Lossy()), max_retries=3)
        raw = c.chat.completions.with_raw_response.create(model=CHAT, messages=ask("lossy"), max_tokens=2)
        assert raw.retries_taken == 2 and engine.executions()["total"] == before + 1, (raw.retries_taken, engine.executions()["total"] - before)
        assert engine.executions()["counts"][raw.headers["x-task-id"]] == 1


def interrupted() -> None:
    with engine.fault(match="breaks", action="cut", after=2, count=1):
        try:
            for _ in client().chat.completions.create(model=CHAT, messages=ask("breaks"), max_tokens=6, stream=True):
                pass
        except openai.APIError as e:
            assert e.code == "generation_interrupted", e
        else:
            raise AssertionError("a broken stream ended as if it were whole")


def webhooks() -> None:
    """A native task is told to a receiver that trusts only what the client unwraps."""
    heard: queue.Queue = queue.Queue()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.put((body.decode(), {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with urllib.request.urlopen(BASE + "/v1/webhooks/secret") as answer:
            secret = json.load(answer)["data"]["secret"]
        task = {"model": CHAT, "payload": {"text": "tell me"}, "webhook": {"url": f"http://127.0.0.1:{server.server_port}/hook"}}
        request = urllib.request.Request(BASE + "/v1/inference", data=json.dumps(task).encode(), headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            task_id = json.load(answer)["data"]["task_id"]
        body, headers = heard.get(timeout=30)
        ours = client(webhook_secret=secret)
        event = ours.webhooks.unwrap(body, headers)
        assert event.type == "task.succeeded" and event.object == "event" and event.data.id == task_id, body
        assert json.loads(body)["data"]["output"]["text"]
        for broken in ({"payload": body + " ", "headers": headers}, {"payload": body, "headers": {**headers, "webhook-id": "evt_other"}}):
            try:
                ours.webhooks.unwrap(**broken)
            except openai.InvalidWebhookSignatureError:
                continue
            raise AssertionError("a forged delivery was believed")
        hook = {"webhook": task["webhook"]}
        ours.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "and me"}], extra_body=hook)
        event = ours.webhooks.unwrap(*heard.get(timeout=30))
        assert event.type == "task.succeeded", event
        answer = ours.responses.create(model=CHAT, input="and me", background=True, extra_body=hook)
        event = ours.webhooks.unwrap(*heard.get(timeout=30))
        assert isinstance(event, ResponseCompletedWebhookEvent) and event.data.id == answer.id, event
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions"}
        line["body"] = {"model": CHAT, "messages": [{"role": "user", "content": "in a batch"}]}
        requests = ours.files.create(file=("requests.jsonl", json.dumps(line).encode()), purpose="batch")
        batch = ours.batches.create(
            input_file_id=requests.id, endpoint="/v1/chat/completions", completion_window="1h", extra_body=hook
        )
        event = ours.webhooks.unwrap(*heard.get(timeout=60))
        assert isinstance(event, BatchCompletedWebhookEvent) and event.data.id == batch.id, event
        assert ours.batches.retrieve(batch.id).status == "completed"
    finally:
        server.shutdown()
        server.server_close()


def moderations() -> None:
    ours = client()
    verdict = ours.moderations.create(input=["have a nice day", "I hate this"])
    assert [one.flagged for one in verdict.results] == [False, True] and verdict.results[1].categories.hate, verdict
    assert ours.moderations.create(input=[{"type": "text", "text": "a bomb"}]).results[0].category_scores.illicit_violent > 0.5
    try:
        ours.moderations.create(input=[{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}])
    except openai.BadRequestError:
        return
    raise AssertionError("the filter was sent to fetch a URL")


def langchain() -> None:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=BASE + "/v1", api_key="any", model=CHAT, max_tokens=6)
    pieces = [piece.content for piece in chat.stream("hello chain")]
    assert len(pieces) > 1 and "".join(pieces) == chat.invoke("hello chain").content


if __name__ == "__main__":
    run(
        chat, chat_stream, stream_helper, heartbeats, asynchronous, tools, sessions, completions, embeddings, models,
        errors, late, retries, interrupted, webhooks, moderations, langchain,
    )
