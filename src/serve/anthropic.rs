//! `POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's messages.

use super::{
    app::App,
    body::Body,
    conversation::{self, ChatMessage, Content, ContentPart, Rendering},
    error::{Dialect, Result},
    fields::{self, Stop},
    generation::{End, Generation, Piece, Usage},
    sampling::SamplingFields,
    sse,
};
use async_stream::stream;
use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// The line that Claude Code begins its system text with. It changes with each request and says nothing to
/// the model; left in, no request would find the prefix of the one before.
const BILLING: &str = "x-anthropic-billing-header:";

/// A conversation to answer.
#[derive(Debug, Deserialize, ToSchema)]
pub struct MessagesRequest {
    #[schema(min_items = 1)]
    pub messages: Vec<AnthropicMessage>,
    /// The system's message: a text or a list of parts.
    #[serde(default)]
    pub system: Option<Content>,
    /// Any name is taken.
    #[serde(default)]
    #[expect(dead_code, reason = "read only to check its type")]
    pub model: Option<String>,
    /// The most tokens of the answer. Absent: to the end of the context.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 9223372036854775807_i64)]
    pub max_tokens: Option<i64>,
    #[serde(default)]
    pub stop_sequences: Option<Vec<String>>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    #[schema(ignore)]
    pub tools: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub tool_choice: Option<Value>,
}

/// A message of a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct AnthropicMessage {
    /// user or assistant.
    pub role: String,
    /// A text, or a list of parts.
    #[schema(value_type = Content)]
    pub content: AnthropicContent,
}

/// What a message says. Tools' results are messages of their own in chat templates.
#[derive(Clone, Debug)]
pub struct AnthropicContent(Vec<AnthropicPart>);

#[derive(Clone, Debug)]
enum AnthropicPart {
    Content(ContentPart),
    ToolUse(Value),
    ToolResult { id: Value, text: String },
}

impl<'de> Deserialize<'de> for AnthropicContent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::String(text) => Ok(Self(vec![AnthropicPart::Content(ContentPart::Text { text })])),
            Value::Array(parts) => {
                let parts = parts.into_iter().filter_map(|part| part_of(part).transpose());
                parts.collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
            }
            other => {
                Err(D::Error::custom(format!("it is {other}, but a text or a list of parts belongs there")))
            }
        }
    }
}

/// A part of a message; None for those that say nothing to the model.
fn part_of(part: Value) -> Result<Option<AnthropicPart>, serde_json::Error> {
    match part["type"].as_str() {
        Some("thinking" | "redacted_thinking") => Ok(None),
        Some("tool_use") => {
            let function = json!({"name": part["name"], "arguments": part["input"]});
            let call = json!({"id": part["id"], "type": "function", "function": function});
            Ok(Some(AnthropicPart::ToolUse(call)))
        }
        Some("tool_result") => {
            let text = match &part["content"] {
                Value::String(text) => text.clone(),
                Value::Array(parts) => {
                    parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
                }
                _ => String::new(),
            };
            Ok(Some(AnthropicPart::ToolResult { id: part["tool_use_id"].clone(), text }))
        }
        _ => serde_json::from_value(part).map(|part| Some(AnthropicPart::Content(part))),
    }
}

impl AnthropicMessage {
    /// As one or more messages of a chat template.
    fn messages(&self) -> Vec<ChatMessage> {
        let (mut messages, mut parts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for part in &self.content.0 {
            match part {
                AnthropicPart::Content(part) => parts.push(part.clone()),
                AnthropicPart::ToolUse(call) => calls.push(call.clone()),
                AnthropicPart::ToolResult { id, text } => {
                    let fields = Map::from_iter([("tool_call_id".to_owned(), id.clone())]);
                    messages.push(ChatMessage {
                        fields,
                        ..ChatMessage::new("tool", Content::Text(text.clone()))
                    });
                }
            }
        }
        if !parts.is_empty() || !calls.is_empty() || messages.is_empty() {
            let mut message = ChatMessage::new(&self.role, Content::Parts(parts));
            if !calls.is_empty() {
                message.fields.insert("tool_calls".to_owned(), calls.into());
            }
            messages.push(message);
        }
        messages
    }
}

impl MessagesRequest {
    fn check(&self) -> Result<()> {
        // Tools of other types run at Anthropic's: they are passed over.
        let is_own = |tool: &&Value| matches!(tool["type"].as_str(), None | Some("custom"));
        let own: Vec<Value> = match &self.tools {
            Some(Value::Array(tools)) => tools.iter().filter(is_own).cloned().collect(),
            _ => Vec::new(),
        };
        fields::refuse_tools(&Some(own.into()), &self.tool_choice)
    }

    fn max_tokens(&self, or: Option<usize>) -> Result<Option<usize>> {
        fields::max_tokens(&[("max_tokens", self.max_tokens)], or)
    }

    fn messages(&self) -> Vec<ChatMessage> {
        let system = self.system.iter().map(|content| ChatMessage::new("system", without_billing(content)));
        system.chain(self.messages.iter().flat_map(AnthropicMessage::messages)).collect()
    }

    fn rendering(&self) -> Rendering {
        let continues = self.messages.last().is_some_and(|message| message.role == "assistant");
        Rendering { continues, add_generation_prompt: true, ..Rendering::default() }
    }
}

/// The system's message without the line of [`BILLING`].
fn without_billing(system: &Content) -> Content {
    let without = |text: &str| match text.starts_with(BILLING) {
        true => text.split_once('\n').map_or("", |(_, rest)| rest).trim_start_matches('\n').to_owned(),
        false => text.to_owned(),
    };
    match system {
        Content::Text(text) => Content::Text(without(text)),
        Content::Parts(parts) => {
            let parts = parts.iter().map(|part| match part {
                ContentPart::Text { text } => ContentPart::Text { text: without(text) },
                other => other.clone(),
            });
            let says = |part: &ContentPart| !matches!(part, ContentPart::Text { text } if text.is_empty());
            Content::Parts(parts.filter(says).collect())
        }
    }
}

/// Anthropic's name for the end of a text, and the stop string that ended it.
fn reason(end: &End) -> (&'static str, Option<&str>) {
    match end {
        End::Eos => ("end_turn", None),
        End::Stop(stop) => ("stop_sequence", Some(stop)),
        End::Length => ("max_tokens", None),
    }
}

/// Anthropic's `usage`: its input tokens are those not found in the cache.
fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.generated,
    })
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages",
    request_body = MessagesRequest,
    responses((
        status = 200,
        description = "The answer, or a stream of events",
        content((Object = "application/json"), (serde_json::Value = "text/event-stream"))
    ))
)]
pub async fn messages(
    State(app): State<Arc<App>>,
    Extension(request_id): Extension<super::access::RequestId>,
    Body((request, sampling)): Body<(MessagesRequest, SamplingFields)>,
) -> Result<Response> {
    let served = app.served()?;
    request.check()?;
    let max_tokens = request.max_tokens(app.options.max_tokens)?;
    let stops = Stop::texts(request.stop_sequences.clone().map(Stop::Many), served);
    fields::check_stops("stop_sequences", &stops)?;
    let rendering = request.rendering();
    let job = served.answer_job(&sampling, stops.clone(), max_tokens, &rendering)?;
    let prompt = conversation::prompt(&app, request.messages(), rendering).await?;
    let generation = Generation::start(&app, served, vec![prompt], &job)?;
    let reply = Reply { app: app.clone(), id: super::new_id("msg_"), stops, request_id: request_id.0 };
    match request.stream.unwrap_or(false) {
        true => Ok(reply.stream(generation)),
        false => reply.whole(generation).await,
    }
}

/// Counts the tokens of a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    request_body = MessagesRequest,
    responses((status = 200, description = "The number of tokens", body = Object))
)]
pub async fn count_tokens(
    State(app): State<Arc<App>>,
    Body((request,)): Body<(MessagesRequest,)>,
) -> Result<Json<Value>> {
    app.served()?;
    request.check()?;
    request.max_tokens(None)?;
    let prompt = conversation::prompt(&app, request.messages(), request.rendering()).await?;
    Ok(Json(json!({"input_tokens": prompt.ids.len()})))
}

struct Reply {
    app: Arc<App>,
    id: String,
    /// The stop strings of the request: the plain form of conversations has another one.
    stops: Vec<String>,
    request_id: String,
}

impl Reply {
    fn message(&self, content: Value, end: Option<&End>, usage: Value) -> Value {
        let (reason, stop) = self.reason(end);
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.app.loaded().name,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": usage,
        })
    }

    fn reason<'e>(&self, end: Option<&'e End>) -> (Option<&'static str>, Option<&'e str>) {
        match end.map(reason) {
            None => (None, None),
            Some((_, Some(stop))) if !self.stops.iter().any(|known| known == stop) => {
                (Some("end_turn"), None)
            }
            Some((name, stop)) => (Some(name), stop),
        }
    }

    async fn whole(self, mut generation: Generation) -> Result<Response> {
        let text = generation.complete().await?.remove(0);
        let content = json!([{"type": "text", "text": text.text}]);
        Ok(Json(self.message(content, Some(&text.end), usage(generation.usage()))).into_response())
    }

    fn stream(self, mut generation: Generation) -> Response {
        let event = |name: &str, mut fields: Value| {
            fields["type"] = name.into();
            sse::named(name, &fields)
        };
        sse::answer(stream! {
            let mut has_begun = false;
            let mut ended = End::Length;
            loop {
                let piece = generation.next().await;
                // The usage at the beginning tells what was found in the cache, which is known by now.
                if !has_begun && piece.is_ok() {
                    has_begun = true;
                    let begun = self.message(json!([]), None, usage(generation.usage()));
                    yield event("message_start", json!({"message": begun}));
                    let block = json!({"type": "text", "text": ""});
                    yield event("content_block_start", json!({"index": 0, "content_block": block}));
                    yield event("ping", json!({}));
                }
                let (text, end) = match piece {
                    Ok(Some(Piece::Read { .. })) => continue,
                    Ok(Some(Piece::Text { text, .. })) => (text, None),
                    Ok(Some(Piece::End { text, end, .. })) => (text, Some(end)),
                    Ok(None) => break,
                    Err(error) => {
                        yield sse::named("error", &error.body(Dialect::Anthropic, &self.request_id));
                        return;
                    }
                };
                if !text.is_empty() {
                    let delta = json!({"type": "text_delta", "text": text});
                    yield event("content_block_delta", json!({"index": 0, "delta": delta}));
                }
                ended = end.unwrap_or(ended);
            }
            yield event("content_block_stop", json!({"index": 0}));
            let (reason, stop) = self.reason(Some(&ended));
            let delta = json!({"stop_reason": reason, "stop_sequence": stop});
            yield event("message_delta", json!({"delta": delta, "usage": usage(generation.usage())}));
            yield event("message_stop", json!({}));
        })
    }
}
