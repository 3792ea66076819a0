//! `POST /completion`: llama-server's own form of completions.

use super::{
    app::{App, Served},
    body::Body,
    chat_completions::contents,
    completions,
    error::{ApiError, Dialect, Result},
    fields::{self, RunFields, Stop},
    generation::{End, Generation, Job, Piece, Token},
    progress::Progress,
    prompt::Prompts,
    sampling::SamplingFields,
    sse,
};
use crate::sampling::Sampling;
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
pub struct NativeRequest {
    /// A text, a list of token ids, a list of texts and ids, or a list of such prompts.
    pub prompt: Prompts,
    /// The most tokens of the continuation; -1, or absent: to the end of the context.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 9223372036854775807_i64)]
    pub n_predict: Option<i64>,
    /// OpenAI's name of `n_predict`.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 9223372036854775807_i64)]
    pub max_tokens: Option<i64>,
    #[serde(default)]
    pub stop: Option<Stop>,
    #[serde(default)]
    pub stream: Option<bool>,
    /// To tell the log-probability of each token, and of so many alternatives; 0: of none.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 20)]
    pub n_probs: Option<i64>,
    /// Whether the answer tells the token ids.
    #[serde(default)]
    pub return_tokens: Option<bool>,
    /// Whether a stream tells how much of the prompt is read.
    #[serde(default)]
    pub return_progress: Option<bool>,
    #[serde(default)]
    pub timings_per_token: Option<bool>,
    /// The only fields of the answer that are wanted, each with the way to it: `generation_settings/seed`.
    #[serde(default)]
    pub response_fields: Option<Vec<String>>,
    #[serde(default)]
    #[schema(ignore)]
    pub post_sampling_probs: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub grammar: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub json_schema: Option<Value>,
}

/// The settings of a generation by llama-server's names.
pub fn settings(sampling: &Sampling, max_tokens: Option<usize>, stops: &[String]) -> Value {
    let Sampling { penalties, dry, xtc, mirostat, .. } = sampling;
    // JSON has no infinity: null stands for never.
    let biases: Vec<_> = sampling.biases.iter().map(|(id, bias)| json!({"id": id, "bias": bias})).collect();
    json!({
        "seed": sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "xtc_probability": xtc.probability,
        "xtc_threshold": xtc.threshold,
        "repeat_last_n": if penalties.last == 0 { -1 } else { i64::from(penalties.last) },
        "repeat_penalty": penalties.repetition,
        "presence_penalty": penalties.presence,
        "frequency_penalty": penalties.frequency,
        "dry_multiplier": dry.multiplier,
        "dry_base": dry.base,
        "dry_allowed_length": dry.allowed,
        "dry_penalty_last_n": if dry.last == 0 { -1 } else { i64::from(dry.last) },
        "mirostat": if mirostat.is_some() { 2 } else { 0 },
        "mirostat_tau": mirostat.map_or(5.0, |mirostat| mirostat.target),
        "mirostat_eta": mirostat.map_or(0.1, |mirostat| mirostat.rate),
        "stop": stops,
        "logit_bias": biases,
        "max_tokens": max_tokens.map_or(-1, |count| count as i64),
        "n_predict": max_tokens.map_or(-1, |count| count as i64),
    })
}

/// Continues texts, in llama-server's own form.
#[utoipa::path(
    post,
    path = "/completion",
    request_body = NativeRequest,
    responses((
        status = 200,
        description = "The continuation, or a stream of its chunks",
        content((serde_json::Value = "application/json"), (serde_json::Value = "text/event-stream"))
    ))
)]
pub async fn completion(
    State(app): State<Arc<App>>,
    Body((request, sampling, run)): Body<(NativeRequest, SamplingFields, RunFields)>,
) -> Result<Response> {
    let served = app.served()?;
    fields::refuse(&[
        ("post_sampling_probs", &request.post_sampling_probs),
        ("grammar", &request.grammar),
        ("json_schema", &request.json_schema),
    ])?;
    let max_tokens = fields::max_tokens(
        &[("n_predict", request.n_predict), ("max_tokens", request.max_tokens)],
        app.options.max_tokens,
    )?;
    let alternatives = fields::alternatives("n_probs", request.n_probs.unwrap_or(0))?;
    let ends = served.model.all_eos(&served.tokenizer);
    let stops = Stop::texts(request.stop, served);
    fields::check_stops("stop", &stops)?;
    let job = Job {
        sampling: sampling.sampling(served, &ends)?,
        max_tokens,
        stops,
        ends: if sampling.ignore_eos == Some(true) { Vec::new() } else { ends },
        logprobs: (alternatives > 0).then_some(alternatives),
        count: 1,
        trims: false,
        run: run.run(served)?,
    };
    let is_stream = request.stream.unwrap_or(false);
    if is_stream && matches!(request.prompt, Prompts::Many(_)) {
        return Err(ApiError::field("prompt", "is a list of prompts, but only one can be streamed"));
    }
    let prompts = completions::tokens(&app, &request.prompt).await?;
    let reply = Reply {
        settings: settings(&job.sampling, job.max_tokens, &job.stops),
        prompts: request.prompt.all().iter().map(|prompt| prompt.text(served)).collect(),
        app: app.clone(),
        has_tokens: request.return_tokens.unwrap_or(false),
        has_progress: request.return_progress.unwrap_or(false),
        has_timings: request.timings_per_token.unwrap_or(false),
        fields: request.response_fields.unwrap_or_default(),
    };
    let generation = Generation::start(&app, served, prompts, &job)?;
    match is_stream {
        true => Ok(reply.stream(generation)),
        false => reply.whole(generation, matches!(request.prompt, Prompts::Many(_))).await,
    }
}

struct Reply {
    app: Arc<App>,
    settings: Value,
    prompts: Vec<String>,
    has_tokens: bool,
    has_progress: bool,
    has_timings: bool,
    /// The fields that are wanted; all if it is empty.
    fields: Vec<String>,
}

fn ids(tokens: &[Token]) -> Vec<u32> {
    tokens.iter().map(|token| token.id).collect()
}

fn probabilities(served: &Served, tokens: &[Token]) -> Option<Vec<Value>> {
    tokens.iter().any(|token| token.logprobs.is_some()).then(|| contents(served, tokens))
}

impl Reply {
    fn last(&self, index: usize, text: &str, tokens: &[Token], end: &End, progress: &Progress) -> Value {
        let served = self.app.loaded();
        let (kind, word) = match end {
            End::Eos => ("eos", ""),
            End::Stop(word) => ("word", word.as_str()),
            End::Length => ("limit", ""),
        };
        let tokens_of_all = progress.prompt_tokens + progress.generated;
        let mut answer = json!({
            "index": index,
            "content": text,
            "tokens": if self.has_tokens { ids(tokens) } else { Vec::new() },
            "id_slot": progress.slot,
            "stop": true,
            "model": served.name,
            "tokens_predicted": progress.generated,
            "tokens_evaluated": progress.prompt_tokens,
            "generation_settings": self.settings,
            "prompt": self.prompts[index],
            "has_new_line": text.contains('\n'),
            "truncated": match end {
                End::Length => tokens_of_all >= served.context,
                // Only what left out tokens was longer.
                End::Eos | End::Stop(_) => tokens_of_all > served.context,
            },
            "stop_type": kind,
            "stopping_word": word,
            "tokens_cached": tokens_of_all,
            "timings": progress.timings(),
        });
        if let Some(probabilities) = probabilities(served, tokens) {
            answer["completion_probabilities"] = probabilities.into();
        }
        if self.fields.is_empty() {
            return answer;
        }
        let wanted = |way: &String| {
            let mut steps = way.split('/');
            Some((way.clone(), steps.try_fold(&answer, |value, step| value.get(step))?.clone()))
        };
        self.fields.iter().filter_map(wanted).collect::<Map<_, _>>().into()
    }

    async fn whole(self, mut generation: Generation, is_list: bool) -> Result<Response> {
        let texts = generation.complete().await?;
        let answers = texts.iter().enumerate().map(|(index, text)| {
            self.last(index, &text.text, &text.tokens, &text.end, generation.progress(index))
        });
        let mut answers: Vec<Value> = answers.collect();
        match is_list {
            true => Ok(Json(answers).into_response()),
            false => Ok(Json(answers.pop()).into_response()),
        }
    }

    fn stream(self, mut generation: Generation) -> Response {
        sse::answer(stream! {
            let mut has_new_line = false;
            loop {
                match generation.next().await {
                    Ok(Some(Piece::Read { index })) => {
                        if self.has_progress {
                            let progress = generation.progress(index).prompt_progress();
                            let mut read = self.chunk("", &[], generation.progress(index));
                            read["prompt_progress"] = progress;
                            if self.has_timings {
                                read["timings"] = generation.progress(index).timings();
                            }
                            yield sse::data(&read);
                        }
                    }
                    Ok(Some(Piece::Text { index, text, tokens })) => {
                        has_new_line |= text.contains('\n');
                        let progress = generation.progress(index);
                        let mut more = self.chunk(&text, &tokens, progress);
                        if self.has_timings {
                            more["timings"] = progress.timings();
                        }
                        yield sse::data(&more);
                    }
                    Ok(Some(Piece::End { index, text, tokens, end })) => {
                        let progress = generation.progress(index);
                        let mut last = self.last(index, &text, &tokens, &end, progress);
                        last["has_new_line"] = (has_new_line || text.contains('\n')).into();
                        yield sse::data(&last);
                    }
                    Ok(None) => return,
                    Err(error) => {
                        yield sse::data(&error.body(Dialect::OpenAi, ""));
                        return;
                    }
                }
            }
        })
    }

    fn chunk(&self, text: &str, tokens: &[Token], progress: &Progress) -> Value {
        let mut chunk = json!({
            "index": 0,
            "content": text,
            "tokens": ids(tokens),
            "stop": false,
            "id_slot": progress.slot,
            "tokens_predicted": progress.generated,
            "tokens_evaluated": progress.prompt_tokens,
        });
        if let Some(probabilities) = probabilities(self.app.loaded(), tokens) {
            chunk["completion_probabilities"] = probabilities.into();
        }
        chunk
    }
}
