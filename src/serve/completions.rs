//! `POST /v1/completions`: OpenAI's completions of texts.

use super::{
    app::{App, Served},
    body::Body,
    chat_completions::usage,
    error::{ApiError, Dialect, Result},
    fields::{self, RunFields, Stop, StreamOptions},
    generation::{self, Generation, Job, Piece, Token, Tokens},
    prompt::{Prompt, Prompts},
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
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// A text to continue.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CompletionRequest {
    /// A text, a list of token ids, a list of texts and ids, or a list of such prompts.
    pub prompt: Prompts,
    /// Any name is taken.
    #[serde(default)]
    #[expect(dead_code, reason = "read only to check its type")]
    pub model: Option<String>,
    /// The most tokens of a continuation; -1, or absent: to the end of the context.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 9223372036854775807_i64)]
    pub max_tokens: Option<i64>,
    /// llama-server's name of `max_tokens`.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 9223372036854775807_i64)]
    pub n_predict: Option<i64>,
    #[serde(default)]
    pub stop: Option<Stop>,
    /// The number of continuations of each prompt.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 128)]
    pub n: Option<i64>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// To tell the log-probability of each token, and of so many alternatives.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 20)]
    pub logprobs: Option<i64>,
    /// Whether the prompt is repeated before its continuation.
    #[serde(default)]
    pub echo: Option<bool>,
    /// Whether each chunk of a stream tells how fast it came.
    #[serde(default)]
    pub timings_per_token: Option<bool>,
    #[serde(default)]
    #[schema(ignore)]
    pub best_of: Option<i64>,
    #[serde(default)]
    #[schema(ignore)]
    pub suffix: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub response_format: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub grammar: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub json_schema: Option<Value>,
}

/// The beginning of a text that repeats its prompt.
#[derive(Default)]
struct Echo {
    text: String,
    /// The prompt's tokens, if their log-probabilities are wanted.
    tokens: Vec<Token>,
}

/// OpenAI's `logprobs` of completions. `offset`: where the first token's text begins.
fn logprobs(served: &Served, tokens: &[Token], mut offset: usize) -> Value {
    let text_of = |id: u32| String::from_utf8_lossy(&served.tokenizer.token_bytes(id)).into_owned();
    let (mut texts, mut own, mut top, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for token in tokens {
        let text = text_of(token.id);
        offsets.push(offset);
        offset += text.chars().count();
        own.push(token.logprobs.as_ref().map(|logprobs| logprobs.chosen));
        top.push(token.logprobs.as_ref().map(|logprobs| {
            let all = logprobs.top.iter().map(|(id, logprob)| (text_of(*id), json!(logprob)));
            all.collect::<Map<_, _>>()
        }));
        texts.push(text);
    }
    json!({
        "tokens": texts,
        "token_logprobs": own,
        "top_logprobs": top,
        "text_offset": offsets,
        // llama-server's and OpenAI's newer form, beside the older one.
        "content": super::chat_completions::contents(served, tokens),
    })
}

/// The ids of some prompts. Takes time: not for an async thread.
fn tokenize(served: &Served, prompts: &[Prompt]) -> Result<Vec<Tokens>> {
    let one = |prompt: &Prompt| Ok(Tokens { ids: prompt.tokens(served, true)?, images: Vec::new() });
    prompts.iter().map(one).collect()
}

/// The ids of a request's prompts.
pub async fn tokens(app: &Arc<App>, prompts: &Prompts) -> Result<Vec<Tokens>> {
    let prompts = prompts.clone();
    super::on_a_thread(app, move |served| tokenize(served, prompts.all())).await
}

/// Continues texts.
#[utoipa::path(
    post,
    path = "/v1/completions",
    request_body = CompletionRequest,
    responses((
        status = 200,
        description = "The continuations, or a stream of their chunks",
        content((Object = "application/json"), (serde_json::Value = "text/event-stream"))
    ))
)]
pub async fn completions(
    State(app): State<Arc<App>>,
    Body((request, sampling, run)): Body<(CompletionRequest, SamplingFields, RunFields)>,
) -> Result<Response> {
    let served = app.served()?;
    let count = fields::count(request.n)?;
    if request.best_of.is_some_and(|best| best != count as i64) {
        return Err(ApiError::field("best_of", "is not supported other than equal to n: leave it away"));
    }
    fields::refuse_format("response_format", &request.response_format)?;
    fields::refuse(&[
        ("suffix", &request.suffix),
        ("grammar", &request.grammar),
        ("json_schema", &request.json_schema),
    ])?;
    let max_tokens = fields::max_tokens(
        &[("max_tokens", request.max_tokens), ("n_predict", request.n_predict)],
        app.options.max_tokens,
    )?;
    let alternatives = request.logprobs.map(|count| fields::alternatives("logprobs", count)).transpose()?;
    let ends = served.model.all_eos(&served.tokenizer);
    let stops = Stop::texts(request.stop, served);
    fields::check_stops("stop", &stops)?;
    let job = Job {
        sampling: sampling.sampling(served, &ends)?,
        max_tokens,
        stops,
        ends: if sampling.ignore_eos == Some(true) { Vec::new() } else { ends },
        logprobs: alternatives,
        count,
        trims: false,
        run: run.run(served)?,
    };
    let prompts = tokens(&app, &request.prompt).await?;
    // Before the prompts are scored, which takes time: what is scored is then also answered.
    let admitted = Generation::admit(&app, served, &prompts, &job)?;
    let mut echoes = Vec::new();
    for (prompt, tokens) in request.prompt.all().iter().zip(&prompts) {
        let mut echo = Echo::default();
        if request.echo == Some(true) {
            echo.text = prompt.text(served);
            if let Some(alternatives) = alternatives {
                echo.tokens =
                    generation::score(&app, served, tokens, &job.run.adapters, alternatives).await?;
            }
        }
        echoes.push(echo);
    }
    let generation = Generation::start_admitted(&app, served, prompts, &job, admitted);
    let reply = Reply {
        app: app.clone(),
        id: super::new_id("cmpl-"),
        created: super::now(),
        count,
        echoes,
        has_logprobs: alternatives.is_some(),
        include_usage: request.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
        timings: request.timings_per_token.unwrap_or(false),
    };
    match request.stream.unwrap_or(false) {
        true => Ok(reply.stream(generation)),
        false => reply.whole(generation).await,
    }
}

struct Reply {
    app: Arc<App>,
    id: String,
    created: u64,
    /// The number of texts for each prompt.
    count: usize,
    /// What each prompt's texts begin with.
    echoes: Vec<Echo>,
    has_logprobs: bool,
    include_usage: bool,
    timings: bool,
}

impl Reply {
    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.app.loaded().name,
            "system_fingerprint": super::fingerprint(),
            "choices": choices,
        })
    }

    fn choice(&self, index: usize, text: &str, tokens: &[Token], offset: usize, end: Option<&str>) -> Value {
        let logprobs = self.has_logprobs.then(|| logprobs(self.app.loaded(), tokens, offset));
        json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": end})
    }

    async fn whole(self, mut generation: Generation) -> Result<Response> {
        let texts = generation.complete().await?;
        let choices = texts.iter().enumerate().map(|(index, text)| {
            let echo = &self.echoes[index / self.count];
            let tokens = [&echo.tokens[..], &text.tokens].concat();
            self.choice(index, &format!("{}{}", echo.text, text.text), &tokens, 0, Some(text.end.name()))
        });
        let mut answer = self.object(choices.collect());
        answer["usage"] = usage(generation.usage());
        answer["timings"] = generation.progress(0).timings();
        Ok(Json(answer).into_response())
    }

    fn stream(self, mut generation: Generation) -> Response {
        sse::answer(stream! {
            let mut offsets: Vec<usize> = Vec::new();
            for index in 0..self.echoes.len() * self.count {
                let Echo { text, tokens } = &self.echoes[index / self.count];
                offsets.push(text.chars().count());
                if !text.is_empty() {
                    yield sse::data(&self.object(json!([self.choice(index, text, tokens, 0, None)])));
                }
            }
            loop {
                match generation.next().await {
                    Ok(Some(Piece::Read { .. })) => (),
                    Ok(Some(Piece::Text { index, text, tokens })) => {
                        let choice = self.choice(index, &text, &tokens, offsets[index], None);
                        offsets[index] += text.chars().count();
                        let mut more = self.object(json!([choice]));
                        if self.timings {
                            more["timings"] = generation.progress(index).timings();
                        }
                        yield sse::data(&more);
                    }
                    Ok(Some(Piece::End { index, text, tokens, end })) => {
                        let choice = self.choice(index, &text, &tokens, offsets[index], Some(end.name()));
                        let mut last = self.object(json!([choice]));
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
            if self.include_usage {
                let mut last = self.object(json!([]));
                last["usage"] = usage(generation.usage());
                yield sse::data(&last);
            }
            yield sse::done();
        })
    }
}
