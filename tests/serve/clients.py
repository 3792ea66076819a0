"""Asks a running server as OpenAI's and Anthropic's own packages do.

python clients.py URL [KEY]: the server serves the built-in model. Exits 1 with a line for each check that
fails.
"""

import sys
import traceback

import anthropic
import openai

URL, KEY = sys.argv[1], (sys.argv[2:] or ["none"])[0]
client = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0)
claude = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
SAY = [{"role": "user", "content": "Tell me of Lily."}]
GREEDY = {"model": "any", "temperature": 0, "max_tokens": 12}


def chat(**more):
    return client.chat.completions.create(messages=SAY, **{**GREEDY, **more})


def raises(kind, call, **expected):
    """The error that a call ends with."""
    try:
        call()
    except kind as error:
        for name, value in expected.items():
            assert getattr(error, name) == value, (name, getattr(error, name), value)
        return error
    raise AssertionError(f"no {kind.__name__}")


def models():
    listed = client.models.list().data
    assert len(listed) == 1 and listed[0].object == "model"
    assert client.models.retrieve(listed[0].id).id == listed[0].id
    raises(openai.NotFoundError, lambda: client.models.retrieve("owner/other"))


def chat_whole():
    answer = chat()
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason == "length" and choice.logprobs is None
    usage = answer.usage
    assert usage.completion_tokens == 12 and usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + 12
    assert chat().choices[0].message.content == choice.message.content


def chat_stream():
    whole = chat()
    text, roles, ends, usages = "", [], [], []
    for chunk in chat(stream=True, stream_options={"include_usage": True}):
        assert chunk.object == "chat.completion.chunk"
        for choice in chunk.choices:
            text += choice.delta.content or ""
            roles += [choice.delta.role] if choice.delta.role else []
            ends += [choice.finish_reason] if choice.finish_reason else []
        usages += [chunk.usage] if chunk.usage else []
    assert text == whole.choices[0].message.content
    assert roles == ["assistant"] and ends == ["length"]
    assert [usage.completion_tokens for usage in usages] == [12]
    assert all(chunk.usage is None for chunk in chat(stream=True))


def chat_logprobs():
    answer = chat(logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == 12
    assert (
        b"".join(bytes(one.bytes) for one in content).decode().strip()
        == answer.choices[0].message.content.strip()
    )
    for one in content:
        best = [top.logprob for top in one.top_logprobs]
        assert len(best) == 3 and best == sorted(best, reverse=True) and one.logprob == best[0]
    streamed = [
        one
        for chunk in chat(logprobs=True, top_logprobs=3, stream=True)
        for choice in chunk.choices
        for one in (choice.logprobs.content if choice.logprobs else [])
    ]
    assert [(one.token, one.logprob) for one in streamed] == [(one.token, one.logprob) for one in content]
    raises(openai.BadRequestError, lambda: chat(top_logprobs=3), param="top_logprobs")
    raises(openai.BadRequestError, lambda: chat(logprobs=True, top_logprobs=21), param="top_logprobs")


def chat_choices_and_seeds():
    def texts(**more):
        return [choice.message.content for choice in chat(temperature=1, **more).choices]

    three = texts(n=3, seed=7)
    assert three == texts(n=3, seed=7) and len(set(three)) > 1
    assert texts(seed=7) == three[:1]
    assert texts(seed=7) != texts(seed=8)
    usage = chat(n=3).usage
    assert usage.prompt_tokens == chat().usage.prompt_tokens and usage.completion_tokens == 36
    indices = {choice.index for chunk in chat(n=3, stream=True) for choice in chunk.choices}
    assert indices == {0, 1, 2}


def chat_stops():
    text = chat(max_tokens=40).choices[0].message.content
    stop = text[5:9]
    for value in (stop, ["never there", stop]):
        choice = chat(max_tokens=40, stop=value).choices[0]
        assert choice.message.content == text[: text.index(stop)] and choice.finish_reason == "stop"
    streamed = "".join(
        c.delta.content or "" for chunk in chat(max_tokens=40, stop=stop, stream=True) for c in chunk.choices
    )
    assert streamed == text[: text.index(stop)]


def chat_biases():
    first = chat(logprobs=True).choices[0].logprobs.content[0]
    ids = client.post("/../tokenize", body={"content": "Lily"}, cast_to=object)["tokens"]
    for bias in ({str(ids[0]): 100}, [[ids[0], 100]], [["Lily", 100]]):
        answer = chat(max_tokens=1, extra_body={"logit_bias": bias})
        assert answer.choices[0].message.content, bias
    banned = chat(max_tokens=1, extra_body={"logit_bias": [[first.model_extra["id"], False]]}, logprobs=True)
    assert banned.choices[0].logprobs.content[0].token != first.token


def chat_parts_and_prefill():
    parts = [{"type": "text", "text": "Tell me of Lily."}]
    by_parts = client.chat.completions.create(messages=[{"role": "user", "content": parts}], **GREEDY)
    assert by_parts.choices[0].message.content == chat().choices[0].message.content
    begun = SAY + [{"role": "assistant", "content": "Once upon a"}]
    assert (
        client.chat.completions.create(messages=begun, **GREEDY)
        .choices[0]
        .message.content.startswith(" time")
    )
    both = {"continue_final_message": True, "add_generation_prompt": True}
    raises(
        openai.BadRequestError,
        lambda: client.chat.completions.create(messages=begun, extra_body=both, **GREEDY),
    )


def completions():
    def complete(prompt="Once upon a time", **more):
        return client.completions.create(prompt=prompt, **{**GREEDY, **more})

    one = complete()
    assert one.object == "text_completion" and one.choices[0].text.startswith(", there was")
    ids = client.post(
        "/../tokenize", body={"content": "Once upon a time", "add_special": True}, cast_to=object
    )
    assert complete(prompt=ids["tokens"]).choices[0].text == one.choices[0].text
    many = complete(prompt=["Once upon a time", "The cat"], n=2)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text == many.choices[1].text == one.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in complete(stream=True)) == one.choices[0].text
    scored = complete(logprobs=2, echo=True)
    assert scored.choices[0].text == "Once upon a time" + one.choices[0].text
    logprobs = scored.choices[0].logprobs
    assert logprobs.token_logprobs[0] is None and all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert len(logprobs.tokens) == len(ids["tokens"]) + 12
    only = complete(logprobs=0, echo=True, max_tokens=0)
    assert only.choices[0].text == "Once upon a time"
    same = logprobs.token_logprobs[1 : len(ids["tokens"])]
    assert only.choices[0].logprobs.token_logprobs[1:] == same


def responses():
    def respond(text="Tell me of Lily.", **more):
        return client.responses.create(
            **{"model": "any", "input": text, "temperature": 0, "max_output_tokens": 12, **more}
        )

    answer = respond()
    assert answer.output_text == chat().choices[0].message.content
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 12
    items = [{"role": "user", "content": [{"type": "input_text", "text": "Tell me of Lily."}]}]
    assert respond(items).output_text == answer.output_text
    assert respond(instructions="Be kind.").output_text
    assert respond(tools=[{"type": "web_search"}]).output_text == answer.output_text
    events = list(respond(stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] == "response.incomplete"
    assert (
        "".join(event.delta for event in events if event.type == "response.output_text.delta")
        == answer.output_text
    )
    assert events[-1].response.output_text == answer.output_text
    error = raises(openai.BadRequestError, lambda: respond(previous_response_id="resp_1"))
    assert error.param == "previous_response_id" and isinstance(error.code, str)
    failed = list(respond("word " * 3000, stream=True))[-1]
    assert failed.type == "response.failed" and failed.response.error.code == "context_length_exceeded"


def messages():
    def message(**more):
        # The package knows no temperature any more.
        body = {"temperature": more.pop("temperature", 0)}
        return claude.messages.create(
            **{"model": "any", "messages": SAY, "max_tokens": 12, "extra_body": body, **more}
        )

    answer = message()
    assert answer.content[0].text == chat().choices[0].message.content
    assert answer.stop_reason == "max_tokens" and answer.usage.output_tokens == 12
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens == chat().usage.prompt_tokens
    assert claude.messages.count_tokens(model="any", messages=SAY).input_tokens == chat().usage.prompt_tokens
    stop = answer.content[0].text[4:8]
    stopped = message(stop_sequences=[stop])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == stop
    system = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    assert message(system="Be kind.").content[0].text == message(system=system).content[0].text
    billed = "x-anthropic-billing-header: cc_version=2.1.{0}; cc_entrypoint=cli; cch={0};\nBe kind."
    assert (
        message(system=billed.format(7)).usage.input_tokens
        <= message(system="Be kind.").usage.input_tokens + 32
    )
    with claude.messages.stream(
        model="any", messages=SAY, max_tokens=12, extra_body={"temperature": 0}
    ) as stream:
        assert "".join(stream.text_stream) == answer.content[0].text
        assert stream.get_final_message().stop_reason == "max_tokens"
    kinds = [event.type for event in message(stream=True)]
    assert (
        kinds[0] == "message_start"
        and kinds[-1] == "message_stop"
        and kinds.count("content_block_start") == 1
    )
    error = raises(anthropic.BadRequestError, lambda: message(temperature=-1))
    assert error.body["type"] == "error" and error.body["error"]["type"] == "invalid_request_error"
    assert error.request_id and error.body["request_id"] == error.request_id


def embeddings():
    texts = ["Once upon a time", "The cat sat", "Once upon a time"]
    plain = client.embeddings.create(model="any", input=texts, encoding_format="float")
    packed = client.embeddings.create(model="any", input=texts)
    first, second, third = (one.embedding for one in plain.data)
    assert [one.index for one in plain.data] == [0, 1, 2] and first == third != second
    assert abs(sum(value * value for value in first) - 1) < 1e-5
    assert all(abs(a - b) < 1e-6 for a, b in zip(packed.data[0].embedding, first))
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 0


def errors():
    for field, value in (
        ("temperature", -1),
        ("top_p", 2),
        ("n", 0),
        ("max_tokens", -5),
        ("stop", 5),
        ("logit_bias", "x"),
        ("seed", "x"),
        ("stream", "yes"),
        ("response_format", {"type": "json_object"}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ):
        error = raises(openai.BadRequestError, lambda: chat(extra_body={field: value}))
        assert error.type == "invalid_request_error" and field in error.message, (field, error.message)
    for messages in (
        [],
        [{"content": "x"}],
        [{"role": 5, "content": "x"}],
        [{"role": "user", "content": 5}],
        "x",
    ):
        raises(openai.BadRequestError, lambda: client.chat.completions.create(messages=messages, **GREEDY))
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    seen = [{"role": "user", "content": image}]
    error = raises(openai.BadRequestError, lambda: client.chat.completions.create(messages=seen, **GREEDY))
    assert "image" in error.message
    long = [{"role": "user", "content": "word " * 3000}]
    for stream in (False, True):
        call = lambda: client.chat.completions.create(messages=long, stream=stream, **GREEDY)
        error = raises(openai.BadRequestError, call, type="exceed_context_size_error")
        assert error.body["n_prompt_tokens"] > error.body["n_ctx"]
    answer = client.chat.completions.with_raw_response.create(
        messages=SAY, extra_headers={"x-request-id": "mine"}, **GREEDY
    )
    assert answer.headers["x-request-id"] == "mine"


failed = 0
for check in (
    models,
    chat_whole,
    chat_stream,
    chat_logprobs,
    chat_choices_and_seeds,
    chat_stops,
    chat_biases,
    chat_parts_and_prefill,
    completions,
    responses,
    messages,
    embeddings,
    errors,
):
    try:
        check()
    except Exception as error:
        failed += 1
        line = traceback.extract_tb(error.__traceback__)[1].lineno
        print(f"{check.__name__}, line {line}: {type(error).__name__}: {error}")
sys.exit(bool(failed))
