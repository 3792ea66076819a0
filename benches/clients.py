"""Asks a running server as several clients at once: total tokens per second and times to first tokens.

python benches/clients.py URL [CLIENTS [REQUESTS]]: any server with OpenAI's /v1/completions, such as `wgpt
serve` or llama-server. Each client asks for a continuation of 128 tokens of a prompt of its own (some 200
tokens), again and again.
"""

import json
import sys
import threading
import time
import urllib.request

URL = sys.argv[1]
CLIENTS, REQUESTS = (int(value) for value in (*sys.argv[2:4], *("8", "4")[len(sys.argv) - 2 :]))
WORDS = (
    "the sea a ship old wind harbour light night map captain storm rope letter island bread gold song".split()
)


def prompt(seed):
    words = []
    for _ in range(190):
        seed = (seed * 1103515245 + 12345) % 2**31
        words.append(WORDS[seed // 65536 % len(WORDS)])
    return "A story of " + " ".join(words) + ". It began when"


def ask(seed):
    """The seconds to the first token, and the number of tokens."""
    body = {
        "prompt": prompt(seed),
        "max_tokens": 128,
        "temperature": 0.8,
        "seed": seed,
        "stream": True,
        "ignore_eos": True,
    }
    body["stream_options"] = {"include_usage": True}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(URL + "/v1/completions", json.dumps(body).encode(), headers)
    begin, first, tokens = time.monotonic(), None, 0
    with urllib.request.urlopen(request) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                if first is None and chunk["choices"] and chunk["choices"][0]["text"]:
                    first = time.monotonic() - begin
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
    return first, tokens


def client(number, results):
    for request in range(REQUESTS):
        results.append(ask(1 + number * REQUESTS + request))


ask(10**6)
results, begin = [], time.monotonic()
threads = [threading.Thread(target=client, args=(number, results)) for number in range(CLIENTS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
took = time.monotonic() - begin
firsts = sorted(first for first, _ in results)
print(
    json.dumps(
        {
            "clients": CLIENTS,
            "requests": len(results),
            "tokens_per_second": round(sum(tokens for _, tokens in results) / took, 1),
            "first_token_s": {
                "median": round(firsts[len(firsts) // 2], 3),
                "p90": round(firsts[len(firsts) * 9 // 10], 3),
                "max": round(firsts[-1], 3),
            },
        }
    )
)
