//! `POST /v1/chat/completions`: OpenAI's conversations.

use super::{
    app::{App, Served},
    body::Body,
    conversation::{self, ConversationFields},
    error::{ApiError, Dialect, Result},
    fields::{self, RunFields, Stop, StreamOptions},
    generation::{Generation, Job, Piece, Token, Usage},
    sampling::SamplingFields,
    sse,
};
use async_stream::stream;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// How a conversation is to be answered.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ChatRequest {
    /// Any name is taken.
    #[serde(default)]
    #[expect(dead_code, reason = "read only to check its type")]
    pub model: Option<String>,
    /// The most tokens of the answer; -1, or absent: to the end of the context.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 9223372036854775807_i64)]
    pub max_completion_tokens: Option<i64>,
    /// The older name of `max_completion_tokens`.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 9223372036854775807_i64)]
    pub max_tokens: Option<i64>,
    /// llama-server's name of `max_completion_tokens`.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 9223372036854775807_i64)]
    pub n_predict: Option<i64>,
    #[serde(default)]
    pub stop: Option<Stop>,
    /// The number of answers.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 128)]
    pub n: Option<i64>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Whether to tell the log-probability of each token.
    #[serde(default)]
    pub logprobs: Option<bool>,
    /// How many alternatives to each token to tell, too.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 20)]
    pub top_logprobs: Option<i64>,
    /// Whether each chunk of a stream tells how fast it came.
    #[serde(default)]
    pub timings_per_token: Option<bool>,
    /// Whether a stream tells how much of the prompt is read.
    #[serde(default)]
    pub return_progress: Option<bool>,
    #[serde(default)]
    #[schema(ignore)]
    pub tools: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub tool_choice: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub functions: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub response_format: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub grammar: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub json_schema: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub audio: Option<Value>,
}

impl ChatRequest {
    fn check(&self) -> Result<()> {
        fields::refuse_tools(&self.tools, &self.tool_choice)?;
        fields::refuse_format("response_format", &self.response_format)?;
        fields::refuse(&[
            ("functions", &self.functions),
            ("grammar", &self.grammar),
            ("json_schema", &self.json_schema),
            ("audio", &self.audio),
        ])
    }

    fn logprobs(&self) -> Result<Option<usize>> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => Err(ApiError::field("top_logprobs", "needs logprobs to be true")),
            (true, top) => fields::alternatives("top_logprobs", top.unwrap_or(0)).map(Some),
        }
    }
}

/// OpenAI's `usage`.
pub fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.generated,
        "total_tokens": usage.prompt + usage.generated,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    })
}

/// OpenAI's `logprobs` of some tokens.
fn logprobs(served: &Served, tokens: &[Token]) -> Value {
    json!({"content": contents(served, tokens), "refusal": null})
}

/// The log-probabilities of some tokens: each with its text, its bytes and its alternatives.
pub fn contents(served: &Served, tokens: &[Token]) -> Vec<Value> {
    let one = |id: u32, dropped: usize, logprob: f32| {
        let bytes = served.tokenizer.token_bytes(id).split_off(dropped);
        json!({"id": id, "token": String::from_utf8_lossy(&bytes), "bytes": bytes, "logprob": logprob})
    };
    let of = |token: &Token| {
        let logprobs = token.logprobs.as_ref()?;
        let mut value = one(token.id, token.dropped, logprobs.chosen);
        value["top_logprobs"] = logprobs.top.iter().map(|(id, logprob)| one(*id, 0, *logprob)).collect();
        Some(value)
    };
    tokens.iter().filter_map(of).collect()
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    request_body = ChatRequest,
    responses((
        status = 200,
        description = "The answer, or a stream of its chunks",
        content((Object = "application/json"), (serde_json::Value = "text/event-stream"))
    ))
)]
pub async fn chat_completions(
    State(app): State<Arc<App>>,
    Body((conversation, request, sampling, run)): Body<(
        ConversationFields,
        ChatRequest,
        SamplingFields,
        RunFields,
    )>,
) -> Result<Response> {
    let served = app.served()?;
    request.check()?;
    let count = fields::count(request.n)?;
    let max_tokens = fields::max_tokens(
        &[
            ("max_completion_tokens", request.max_completion_tokens),
            ("max_tokens", request.max_tokens),
            ("n_predict", request.n_predict),
        ],
        app.options.max_tokens,
    )?;
    let rendering = conversation.rendering()?;
    let logprobs_of = request.logprobs()?;
    let stops = Stop::texts(request.stop.clone(), served);
    fields::check_stops("stop", &stops)?;
    let job = served.answer_job(&sampling, stops, max_tokens, &rendering)?;
    let job = Job { logprobs: logprobs_of, count, run: run.run(served)?, ..job };
    let options = StreamFields {
        include_usage: request.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
        timings: request.timings_per_token.unwrap_or(false),
        progress: request.return_progress.unwrap_or(false),
        logprobs: logprobs_of.is_some(),
    };
    let prompt = conversation::prompt(&app, conversation.messages, rendering).await?;
    let generation = Generation::start(&app, served, vec![prompt], &job)?;
    match request.stream.unwrap_or(false) {
        true => Ok(stream_of(app.clone(), generation, count, options)),
        false => whole(&app, generation, logprobs_of.is_some()).await,
    }
}

/// How many tokens the prompt of a conversation has.
#[utoipa::path(
    post,
    path = "/v1/chat/completions/input_tokens",
    request_body = ConversationFields,
    responses((status = 200, description = "The number of tokens", body = Object))
)]
pub async fn input_tokens(
    State(app): State<Arc<App>>,
    Body((conversation,)): Body<(ConversationFields,)>,
) -> Result<Json<Value>> {
    app.served()?;
    let rendering = conversation.rendering()?;
    let prompt = conversation::prompt(&app, conversation.messages, rendering).await?;
    Ok(Json(json!({"object": "response.input_tokens", "input_tokens": prompt.ids.len()})))
}

async fn whole(app: &Arc<App>, mut generation: Generation, has_logprobs: bool) -> Result<Response> {
    let texts = generation.complete().await?;
    let served = app.loaded();
    let choices: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            json!({
                "index": index,
                "message": {"role": "assistant", "content": text.text, "refusal": null},
                "logprobs": has_logprobs.then(|| logprobs(served, &text.tokens)),
                "finish_reason": text.end.name(),
            })
        })
        .collect();
    let answer = json!({
        "id": super::new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": super::now(),
        "model": served.name,
        "system_fingerprint": super::fingerprint(),
        "choices": choices,
        "usage": usage(generation.usage()),
        "timings": generation.progress(0).timings(),
    });
    Ok(Json(answer).into_response())
}

struct StreamFields {
    include_usage: bool,
    timings: bool,
    progress: bool,
    logprobs: bool,
}

fn stream_of(app: Arc<App>, mut generation: Generation, count: usize, options: StreamFields) -> Response {
    let (id, created, fingerprint) = (super::new_id("chatcmpl-"), super::now(), super::fingerprint());
    sse::answer(stream! {
        let served = app.loaded();
        let chunk = |choices: Value| json!({
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": served.name,
            "system_fingerprint": fingerprint,
            "choices": choices,
        });
        let choice = |index: usize, delta: Value, tokens: &[Token], end: Option<&str>| {
            let logprobs = (options.logprobs && !tokens.is_empty()).then(|| logprobs(served, tokens));
            chunk(json!([{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": end}]))
        };
        for index in 0..count {
            yield sse::data(&choice(index, json!({"role": "assistant", "content": null}), &[], None));
        }
        loop {
            match generation.next().await {
                Ok(Some(Piece::Read { index })) => {
                    if options.progress {
                        let mut read = choice(index, json!({}), &[], None);
                        read["prompt_progress"] = generation.progress(index).prompt_progress();
                        if options.timings {
                            read["timings"] = generation.progress(index).timings();
                        }
                        yield sse::data(&read);
                    }
                }
                Ok(Some(Piece::Text { index, text, tokens })) => {
                    let mut more = choice(index, json!({"content": text}), &tokens, None);
                    if options.timings {
                        more["timings"] = generation.progress(index).timings();
                    }
                    yield sse::data(&more);
                }
                Ok(Some(Piece::End { index, text, tokens, end })) => {
                    if !text.is_empty() || !tokens.is_empty() {
                        yield sse::data(&choice(index, json!({"content": text}), &tokens, None));
                    }
                    let mut last = choice(index, json!({}), &[], Some(end.name()));
                    last["timings"] = generation.progress(index).timings();
                    yield sse::data(&last);
                }
                Ok(None) => break,
                Err(error) => {
                    yield sse::data(&error.body(Dialect::OpenAi, ""));
                    return;
                }
            }
        }
        if options.include_usage {
            let mut last = chunk(json!([]));
            last["usage"] = usage(generation.usage());
            last["timings"] = generation.progress(0).timings();
            yield sse::data(&last);
        }
        yield sse::done();
    })
}
