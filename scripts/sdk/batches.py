"""Use files and batches through the official Python client, against a running Penstock.

Usage: batches.py BASE_URL FAULTS_URL
"""

import io
import json
import sys
import time

import openai
import rig

engine = rig.Engine(sys.argv[2])
client = rig.client(timeout=60)
LINES = 120


def line(number, url="/v1/chat/completions", **body):
    body = body or {"model": "sim-chat", "messages": [{"role": "user", "content": f"line {number}"}], "max_tokens": 3}
    return json.dumps({"custom_id": f"request-{number}", "method": "POST", "url": url, "body": body})


def upload(lines, **more):
    content = io.BytesIO("\n".join(lines).encode())
    return client.files.create(file=("requests.jsonl", content), purpose="batch", **more)


def run(file, endpoint="/v1/chat/completions"):
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"night": "17"})


def ended(batch):
    for _ in range(1200):
        batch = client.batches.retrieve(batch.id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.05)
    raise AssertionError(f"still {batch.status}: {batch.request_counts}")


def results(file_id):
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def files():
    kept = upload([line(1)], expires_after={"anchor": "created_at", "seconds": 3600})
    assert kept.object == "file" and kept.purpose == "batch" and kept.filename == "requests.jsonl", kept
    assert kept.expires_at - kept.created_at == 3600, kept
    assert client.files.retrieve(kept.id) == kept
    assert client.files.content(kept.id).text == line(1)
    assert kept.id in [f.id for f in client.files.list(purpose="batch", limit=100)]
    assert client.files.delete(kept.id).deleted
    try:
        client.files.retrieve(kept.id)
        raise AssertionError("a deleted file is there")
    except openai.NotFoundError as e:
        assert e.body["type"] == "invalid_request_error" and e.body["code"] == "not_found", e.body
    try:
        client.files.create(file=("x", b"x"), purpose="nonsense")
        raise AssertionError("an unknown purpose is taken")
    except openai.BadRequestError as e:
        assert e.body["param"] == "purpose", e.body


def whole():
    batch = run(upload([line(n) for n in range(LINES)]))
    assert batch.object == "batch" and batch.status in ("validating", "in_progress"), batch
    batch = ended(batch)
    assert batch.status == "completed" and batch.metadata == {"night": "17"} and batch.error_file_id is None, batch
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (LINES, LINES, 0), batch
    assert batch.completed_at >= batch.in_progress_at >= batch.created_at and batch.expires_at - batch.created_at == 86400, batch
    got = results(batch.output_file_id)
    assert sorted(r["custom_id"] for r in got) == sorted(f"request-{n}" for n in range(LINES)), len(got)
    for r in got:
        assert r["error"] is None and r["response"]["status_code"] == 200 and r["response"]["request_id"], r
        assert r["response"]["body"]["choices"][0]["finish_reason"], r
    assert batch.id in [b.id for b in client.batches.list(limit=10)]


def embeddings():
    texts = [line(n, "/v1/embeddings", model="sim-embed", input=[f"text {n}", "b"]) for n in range(5)]
    batch = ended(run(upload(texts), "/v1/embeddings"))
    assert batch.status == "completed", batch
    for r in results(batch.output_file_id):
        assert [e["index"] for e in r["response"]["body"]["data"]] == [0, 1], r


def responses():
    lines = [line(n, url="/v1/responses", model="sim-chat", input=f"line {n}", max_output_tokens=3) for n in range(3)]
    batch = ended(run(upload(lines), endpoint="/v1/responses"))
    assert (batch.status, batch.request_counts.completed) == ("completed", 3), batch
    for one in results(batch.output_file_id):
        answer = openai.types.responses.Response.model_validate(one["response"]["body"])
        assert answer.status == "completed" and len(answer.output_text.split()) == 3 and not answer.store, one


def faults():
    batch = ended(run(upload([line(1), "nonsense", line(1), line(4, "/v1/embeddings")])))
    assert batch.status == "failed" and batch.output_file_id is None, batch
    assert [(e.line, e.code) for e in batch.errors.data] == [
        (2, "invalid_json_line"), (3, "duplicate_custom_id"), (4, "invalid_url")], batch.errors


def cancelled():
    with engine.fault(match="hold", action="hang"):
        held = [line(n, model="sim-chat", messages=[{"role": "user", "content": f"hold {n}"}]) for n in range(600)]
        batch = run(upload(held))
        batch = client.batches.cancel(batch.id)
        assert batch.status in ("cancelling", "cancelled"), batch
        batch = ended(batch)
    assert batch.status == "cancelled" and batch.cancelled_at and batch.output_file_id is None, batch
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (600, 0, 600), batch
    lines = results(batch.error_file_id)
    assert len(lines) == 600 and {r["error"]["code"] for r in lines} == {"batch_cancelled"}, lines[:3]
    try:
        client.batches.cancel(ended(run(upload([line(1)]))).id)
        raise AssertionError("an ended batch is cancelled")
    except openai.ConflictError:
        pass


if __name__ == "__main__":
    rig.run(files, whole, embeddings, responses, faults, cancelled)
