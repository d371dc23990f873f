"""Use responses of the official Python client of the OpenAI API against a running Penstock.

Usage: responses.py BASE_URL FAULTS_URL
"""

import json
import sys
import time

import httpx
import openai
import pydantic
from rig import Engine, Lossy, client, expect, run

engine = Engine(sys.argv[2])
CHAT = "sim-chat"
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}, "strict": False}]


def create(**asked):
    return client().responses.create(**{"model": CHAT, "max_output_tokens": 8, **asked})


def begin(text: str, tokens: int) -> str:
    """Begin a response that takes a while: streamed, and left alone."""
    stream = create(input=text, background=True, stream=True, max_output_tokens=tokens)
    response_id = next(iter(stream)).response.id
    stream.close()
    return response_id


def poll(response_id: str):
    for _ in range(300):
        answer = client().responses.retrieve(response_id)
        if answer.status not in ("queued", "in_progress"):
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{response_id} does not end")


def rising(events: list) -> None:
    numbers = [e.sequence_number for e in events]
    assert numbers == sorted(set(numbers)), numbers


def whole() -> None:
    answer = create(input="hello", instructions="be brief", metadata={"a": "b"}, user="somebody")
    assert answer.id.startswith("resp_") and answer.object == "response" and answer.status == "completed", answer
    assert len(answer.output_text.split()) == 8 and answer.usage.output_tokens == 8
    assert answer.metadata == {"a": "b"} and answer.instructions == "be brief" and answer.store and not answer.background
    again = client().responses.retrieve(answer.id)
    assert again.to_dict() == answer.to_dict(), (again, answer)


def streamed() -> None:
    events = list(create(input="a story", stream=True))
    rising(events)
    assert [events[0].type, events[0].sequence_number, events[-1].type] == ["response.created", 0, "response.completed"]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == create(input="a story").output_text
    with client().responses.stream(model=CHAT, input="a story", max_output_tokens=8) as stream:
        for event in stream:
            if event.type == "response.output_text.done":
                assert event.text == text
        assert stream.get_final_response().output_text == text


def parsed() -> None:
    class weather(pydantic.BaseModel):
        text: str

    asked = {"model": CHAT, "input": "weather?", "tools": [openai.pydantic_function_tool(weather)], "max_output_tokens": 8}
    call = client().responses.parse(**asked).output[0]
    assert call.type == "function_call" and call.parsed_arguments.text, call
    with client().responses.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_response().output[0].parsed_arguments == call.parsed_arguments
    assert "response.function_call_arguments.done" in kinds and "response.output_text.delta" not in kinds, kinds
    try:
        client().responses.parse(model=CHAT, input="words", text_format=weather, max_output_tokens=3)
    except pydantic.ValidationError:
        return  # the form was asked for; the simulated engine has only words
    raise AssertionError("words are no JSON")


def tools() -> None:
    answer = create(input="weather?", tools=TOOLS)
    call = answer.output[0]
    assert call.type == "function_call" and call.name == "weather" and "text" in json.loads(call.arguments), answer
    with client().responses.stream(model=CHAT, input="weather?", tools=TOOLS, max_output_tokens=8) as stream:
        final = stream.get_final_response()
    assert final.output[0].arguments == call.arguments and final.output[0].call_id == call.call_id
    said = [{"role": "user", "content": "weather?"}, call, {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    assert create(input=said, tools=TOOLS).output_text
    following = create(input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}], previous_response_id=answer.id, tools=TOOLS)
    assert following.output_text and following.previous_response_id == answer.id
    expect(openai.BadRequestError, lambda: create(input="x", tools=[{"type": "web_search"}]))


def background() -> None:
    answer = create(input="in the background", background=True)
    assert answer.status == "queued" and answer.background, answer
    ended = poll(answer.id)
    assert ended.status == "completed" and len(ended.output_text.split()) == 8 and ended.created_at == answer.created_at
    expect(openai.BadRequestError, lambda: create(input="x", background=True, store=False))


def resumed() -> None:
    """A stream that is dropped mid-way goes on with what is left, from any event."""
    begun = create(input="a long story", background=True, stream=True, max_output_tokens=60)
    events = []
    for event in begun:
        events.append(event)
        if sum(e.type == "response.output_text.delta" for e in events) == 5:
            break
    begun.close()
    response_id = events[0].response.id
    assert [e.type for e in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    events += client().responses.retrieve(response_id, stream=True, starting_after=events[-1].sequence_number)
    rising(events)
    ended = poll(response_id)
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == ended.output_text == events[-1].response.output_text
    everything = list(client().responses.retrieve(response_id, stream=True))
    assert [e.to_dict() for e in everything] == [e.to_dict() for e in events]
    for after in (0, 7, events[-2].sequence_number):
        rest = list(client().responses.retrieve(response_id, stream=True, starting_after=after))
        assert [e.to_dict() for e in rest] == [e.to_dict() for e in events if e.sequence_number > after]
    with client().responses.stream(response_id=response_id) as stream:
        assert stream.get_final_response().output_text == ended.output_text


def interrupted() -> None:
    """Whoever watches an attempt that breaks is told so, and finds the next one."""
    events = []
    with engine.fault(match="breaks", action="cut", after=2, count=1):
        try:
            for event in create(input="breaks", background=True, stream=True):
                events.append(event)
        except openai.APIError as e:
            assert e.code == "generation_interrupted", e
        else:
            raise AssertionError("a broken stream ended as if it were whole")
    response_id, after = events[0].response.id, events[-1].sequence_number
    rest = list(client().responses.retrieve(response_id, stream=True, starting_after=after))
    rising(events + rest)
    assert rest[0].type == "response.in_progress", rest[0]
    assert "".join(e.delta for e in rest if e.type == "response.output_text.delta") == poll(response_id).output_text
    with client().responses.stream(response_id=response_id) as stream:
        assert stream.get_final_response().output_text == poll(response_id).output_text


def hung_up() -> None:
    """A response in the background outlives whoever asked for it."""
    before = engine.executions()["total"]
    response_id = begin("left alone", 150)
    assert poll(response_id).status == "completed" and engine.executions()["total"] == before + 1


def cancelled() -> None:
    response_id = begin("never mind", 2000)
    for _ in range(2):
        ended = client().responses.cancel(response_id)
        assert ended.status == "cancelled" and ended.id == response_id, ended.status
    assert client().responses.retrieve(response_id).status == "cancelled"
    events = list(client().responses.retrieve(response_id, stream=True))
    assert events[-1].type == "response.cancelled", events[-1]
    expect(openai.BadRequestError, lambda: client().responses.cancel(create(input="x").id))


def deleted() -> None:
    answer = create(input="forget it")
    client().responses.delete(answer.id)
    for f in (client().responses.retrieve, client().responses.delete, client().responses.cancel, client().responses.input_items.list):
        expect(openai.NotFoundError, lambda: f(answer.id))
    expect(openai.NotFoundError, lambda: create(input="y", previous_response_id=answer.id), "previous_response_not_found")
    kept = create(input="not kept", store=False)
    assert not kept.store
    expect(openai.NotFoundError, lambda: client().responses.retrieve(kept.id))
    running = begin("stop it", 2000)
    client().responses.delete(running)
    expect(openai.NotFoundError, lambda: client().responses.retrieve(running))


def input_items() -> None:
    answer = create(input=[{"role": "user", "content": f"number {i}"} for i in range(5)])
    texts = [item.content[0].text for item in client().responses.input_items.list(answer.id, limit=2, order="asc")]
    assert texts == [f"number {i}" for i in range(5)], texts
    page = client().responses.input_items.list(answer.id, limit=2)
    assert page.has_more and page.data[0].content[0].text == "number 4" and page.data[0].id != page.data[1].id


def conversation() -> None:
    first = create(input="one", instructions="not carried over")
    second = create(input="two", previous_response_id=first.id)
    third = create(input="three", previous_response_id=second.id)
    assert third.previous_response_id == second.id and third.usage.input_tokens > second.usage.input_tokens > 0
    said = [{"role": "user", "content": "one"}, *first.output, {"role": "user", "content": "two"}, *second.output, {"role": "user", "content": "three"}]
    assert create(input=said).output_text == third.output_text
    expect(openai.NotFoundError, lambda: create(input="x", previous_response_id="resp_nobody"), "previous_response_not_found")
    running = begin("slow", 2000)
    e = expect(openai.BadRequestError, lambda: create(input="x", previous_response_id=running))
    assert e.param == "previous_response_id"
    client().responses.cancel(running)


def errors() -> None:
    c = client(max_retries=0)
    e = expect(openai.NotFoundError, lambda: c.responses.create(model="nobody", input="x"), "model_not_found")
    assert e.param == "model"
    e = expect(openai.BadRequestError, lambda: c.responses.create(model=CHAT, input=[]))
    assert e.param == "input"
    expect(openai.NotFoundError, lambda: c.responses.retrieve("resp_nobody"))
    with engine.fault(match="refused", status=422):
        expect(openai.UnprocessableEntityError, lambda: c.responses.create(model=CHAT, input="refused"), "rejected")
        failed = poll(create(input="refused too", background=True).id)
        assert failed.status == "failed" and failed.error.code == "invalid_prompt" and failed.output == [], failed
        last = list(client().responses.retrieve(failed.id, stream=True))[-1]
        assert last.type == "response.failed" and last.response.error.message


def retries() -> None:
    """A client whose connection is lost retries, and the task runs once."""
    with engine.fault(match="lossy", action="slow", delay="2s"):
        before = engine.executions()["total"]
        raw = client(http_client=httpx.Client(transport=Lossy()), max_retries=3).responses.with_raw_response.create(model=CHAT, input="lossy")
        assert raw.retries_taken == 2 and engine.executions()["total"] == before + 1, (raw.retries_taken, engine.executions()["total"] - before)


if __name__ == "__main__":
    run(
        whole, streamed, parsed, tools, background, resumed, interrupted, hung_up, cancelled, deleted, input_items,
        conversation, errors, retries,
    )
