"""Use the official Python client of the OpenAI API against a Penstock whose engine is a real one.

Usage: engine.py BASE_URL MODEL
What an engine cannot do is no failure here, but it must be told as an error that the client knows.
"""

import json
import sys

import openai
from rig import ask, client, run

MODEL = sys.argv[2]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]


def counted(usage, choices: int = 1) -> None:
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


def chat() -> None:
    raw = client().chat.completions.with_raw_response.create(model=MODEL, messages=ask("What is a mill?"), max_tokens=24, temperature=0)
    answer = raw.parse()
    assert answer.object == "chat.completion" and answer.model == MODEL and answer.id and answer.created > 0, answer
    assert len(answer.choices) == 1 and answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length") and answer.usage.completion_tokens <= 24
    counted(answer.usage)
    assert raw.headers["x-task-id"].startswith("task_")


def chat_stream() -> None:
    text, finish, usage, chunks = "", [], [], 0
    for chunk in client().chat.completions.create(
        model=MODEL, messages=ask("What is a mill?"), max_tokens=40, stream=True, stream_options={"include_usage": True}
    ):
        chunks += 1
        assert chunk.object == "chat.completion.chunk" and chunk.model == MODEL, chunk
        if chunk.usage:
            assert not chunk.choices
            usage.append(chunk.usage)
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish += [choice.finish_reason] if choice.finish_reason else []
    assert text and chunks > 3 and len(finish) == 1 and finish[0] in ("stop", "length"), (text, chunks, finish)
    assert len(usage) == 1
    counted(usage[0])


def without_usage() -> None:
    assert not any(c.usage for c in client().chat.completions.create(model=MODEL, messages=ask("Hi"), max_tokens=4, stream=True))


def stream_helper() -> None:
    with client().chat.completions.stream(model=MODEL, messages=ask("Hi"), max_tokens=400, stop=["?", "."], temperature=0) as stream:
        text = "".join(e.delta for e in stream if e.type == "content.delta")
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text != ""


def choices() -> None:
    answer = client().chat.completions.create(model=MODEL, messages=ask("Say a word."), max_tokens=6, n=2)
    assert [c.index for c in answer.choices] == [0, 1] and all(c.message.content for c in answer.choices)
    texts = ["", ""]
    for chunk in client().chat.completions.create(model=MODEL, messages=ask("Say a word."), max_tokens=6, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert all(texts), texts


def logprobs() -> None:
    asked = dict(model=MODEL, messages=ask("Say a word."), max_tokens=6, logprobs=True, top_logprobs=2, temperature=0)
    answer = client().chat.completions.create(**asked)
    items = answer.choices[0].logprobs.content
    assert len(items) == answer.usage.completion_tokens and all(i.logprob <= 0 and len(i.top_logprobs) == 2 for i in items), items
    assert "".join(i.token for i in items) == answer.choices[0].message.content
    streamed, text = [], ""
    for chunk in client().chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if choice.logprobs:
                streamed += choice.logprobs.content or []
    assert "".join(i.token for i in streamed) == text != "", (streamed, text)


def completions() -> None:
    answer = client().completions.create(model=MODEL, prompt="One, two, three,", max_tokens=8, temperature=0)
    assert answer.object == "text_completion" and answer.choices[0].text and answer.choices[0].finish_reason in ("stop", "length")
    counted(answer.usage)
    text = "".join(c.text for chunk in client().completions.create(model=MODEL, prompt="One, two, three,", max_tokens=8, temperature=0, stream=True) for c in chunk.choices)
    assert text == answer.choices[0].text, (text, answer.choices[0].text)
    many = client().completions.create(model=MODEL, prompt=["One, two,", "A, B,"], max_tokens=4)
    assert [c.index for c in many.choices] == [0, 1] and all(c.text for c in many.choices)
    assert client().completions.create(model=MODEL, prompt=[504, 1743, 314], max_tokens=4).choices[0].text


def structure() -> None:
    answer = client().chat.completions.create(
        model=MODEL, messages=ask("Name a city."), max_tokens=48, temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": TOOLS[0]["function"]["parameters"]}},
    )
    assert "city" in json.loads(answer.choices[0].message.content), answer.choices[0]


def tools() -> None:
    """The model is too small to call anything of its own will: what must work is that it is offered."""
    answer = client().chat.completions.create(model=MODEL, messages=ask("How is the weather in Paris?"), tools=TOOLS, max_tokens=32)
    said = answer.choices[0].message
    assert said.content or said.tool_calls[0].function.name == "weather", answer


def models() -> None:
    assert [m.id for m in client().models.list()] == [MODEL]


def refused() -> None:
    """The engine says no, for good: the client must not try again."""
    for call in (
        lambda c: c.chat.completions.create(model=MODEL, messages=ask("Hi"), temperature="hot"),
        lambda c: c.chat.completions.create(model=MODEL, messages=ask("long " * 3000), max_tokens=4),
        lambda c: c.embeddings.create(model=MODEL, input="this engine has none"),
    ):
        try:
            answer = call(client(max_retries=0))
        except openai.APIStatusError as e:
            assert e.status_code != 501 and e.type and e.message and (e.code is None or isinstance(e.code, str)), (e.status_code, e.body)
            assert 400 <= e.status_code < 500, (e.status_code, e.body)
            print("    refused with", e.status_code, e.type, e.code, "-", e.body.get("message"))
        else:
            raise AssertionError(answer)


if __name__ == "__main__":
    run(
        chat, chat_stream, without_usage, stream_helper, choices, logprobs, completions, structure, tools, models,
        refused,
    )
