//! `POST /v1/responses`: OpenAI's responses, which coding agents speak. Nothing is stored.

use super::{
    app::{App, Served},
    body::Body,
    chat_completions::contents,
    conversation::{self, ChatMessage, Content, Rendering},
    error::{ApiError, Kind, Result},
    fields::{self, Stop},
    generation::{Complete, End, Generation, Job, Piece, Usage},
    sampling::SamplingFields,
    sse,
};
use async_stream::stream;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response, sse::Event},
};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, Type, schema::AnyOfBuilder},
};

/// A conversation to answer.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ResponsesRequest {
    /// A text, or a list of messages.
    #[serde(default)]
    pub input: Input,
    /// The system's message.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Any name is taken.
    #[serde(default)]
    #[expect(dead_code, reason = "read only to check its type")]
    pub model: Option<String>,
    /// The most tokens of the answer. Absent: to the end of the context.
    #[serde(default)]
    #[schema(minimum = -1, maximum = 9223372036854775807_i64)]
    pub max_output_tokens: Option<i64>,
    #[serde(default)]
    pub stream: Option<bool>,
    /// Whether each event of a stream's text tells how fast it came.
    #[serde(default)]
    pub timings_per_token: Option<bool>,
    /// Whether a stream tells how much of the prompt is read.
    #[serde(default)]
    pub return_progress: Option<bool>,
    /// To tell the log-probability of each token, and of so many alternatives.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 20)]
    pub top_logprobs: Option<i64>,
    /// What else the answer tells: `message.output_text.logprobs`.
    #[serde(default)]
    pub include: Option<Vec<String>>,
    /// Given back with the answer.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
    #[serde(default)]
    #[schema(ignore)]
    pub text: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub tools: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub tool_choice: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub previous_response_id: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub conversation: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub background: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub prompt: Option<Value>,
}

/// What is to be answered.
#[derive(Clone, Debug, Default)]
pub struct Input(Vec<ChatMessage>);

impl PartialSchema for Input {
    fn schema() -> RefOr<Schema> {
        let message = ObjectBuilder::new()
            .property("type", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["message"])))
            .property("role", ObjectBuilder::new().schema_type(Type::String))
            .property("content", Content::schema())
            .required("role");
        let kind = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^(?!message$)"));
        let other = ObjectBuilder::new().property("type", kind).required("type");
        let item = AnyOfBuilder::new().item(message).item(other);
        AnyOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::String))
            .item(ArrayBuilder::new().items(item))
            .item(ObjectBuilder::new().schema_type(Type::Null))
            .into()
    }
}

impl ToSchema for Input {}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let custom = serde::de::Error::custom;
        match Value::deserialize(from)? {
            Value::Null => Ok(Self::default()),
            Value::String(text) => Ok(Self(vec![ChatMessage::new("user", Content::Text(text))])),
            Value::Array(items) => {
                let messages = items
                    .into_iter()
                    .enumerate()
                    .map(|(number, item)| message(item).map_err(|e| custom(format!("item {number}: {e}"))));
                messages.filter_map(Result::transpose).collect::<Result<_, _>>().map(Self)
            }
            other => Err(custom(format!("it is {other}, but a text or a list of messages belongs there"))),
        }
    }
}

/// An item of the input as a message; None for those that say nothing to this model.
fn message(item: Value) -> Result<Option<ChatMessage>, String> {
    let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let kind = match item.get("type") {
        None => None,
        Some(Value::String(kind)) => Some(kind.as_str()),
        Some(other) => return Err(format!("its type is {other}, but a text belongs there")),
    };
    match kind {
        None | Some("message") => {
            let message = serde_json::from_value::<ChatMessage>(item).map_err(|e| e.to_string())?;
            // Only role and content mean something to templates here.
            Ok(Some(ChatMessage { fields: Map::new(), ..message }))
        }
        Some("function_call") => {
            let call = json!({
                "id": text("call_id"),
                "type": "function",
                "function": {"name": text("name"), "arguments": text("arguments")},
            });
            let fields = Map::from_iter([("tool_calls".to_owned(), json!([call]))]);
            Ok(Some(ChatMessage { fields, ..ChatMessage::new("assistant", Content::Text(String::new())) }))
        }
        Some("function_call_output") => {
            let output = match &item["output"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let fields = Map::from_iter([("tool_call_id".to_owned(), json!(text("call_id")))]);
            Ok(Some(ChatMessage { fields, ..ChatMessage::new("tool", Content::Text(output)) }))
        }
        Some("item_reference") => Err("item_reference names what is not stored here: give the item".into()),
        // What a model thought, and the calls of tools that run elsewhere.
        Some(_) => Ok(None),
    }
}

impl ResponsesRequest {
    fn check(&self) -> Result<()> {
        // Tools of other kinds run elsewhere: they are passed over.
        let functions: Vec<Value> = match &self.tools {
            Some(Value::Array(tools)) => {
                tools.iter().filter(|tool| tool["type"] == "function").cloned().collect()
            }
            _ => Vec::new(),
        };
        fields::refuse_tools(&Some(functions.into()), &self.tool_choice)?;
        if let Some(text) = &self.text {
            fields::refuse_format("text.format", &text.get("format").cloned())?;
        }
        fields::refuse(&[
            ("previous_response_id", &self.previous_response_id),
            ("conversation", &self.conversation),
            ("background", &self.background),
            ("prompt", &self.prompt),
        ])
    }

    fn messages(&self) -> Vec<ChatMessage> {
        let system = self.instructions.clone().filter(|text| !text.is_empty());
        let system = system.map(|text| ChatMessage::new("system", Content::Text(text)));
        let mut messages: Vec<ChatMessage> = system.into_iter().chain(self.input.0.clone()).collect();
        if self.input.0.is_empty() {
            // Agents ask so whether the server is there.
            messages.push(ChatMessage::new("user", Content::Text(String::new())));
        }
        messages
    }

    fn logprobs(&self) -> Result<Option<usize>> {
        let asked = self.include.iter().flatten().any(|what| what == "message.output_text.logprobs");
        match self.top_logprobs {
            None => Ok(asked.then_some(0)),
            Some(0) if !asked => Ok(None),
            Some(count) => fields::alternatives("top_logprobs", count).map(Some),
        }
    }
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/responses",
    request_body = ResponsesRequest,
    responses((
        status = 200,
        description = "The answer, or a stream of events",
        content((Object = "application/json"), (serde_json::Value = "text/event-stream"))
    ))
)]
pub async fn responses(
    State(app): State<Arc<App>>,
    Body((request, sampling)): Body<(ResponsesRequest, SamplingFields)>,
) -> Result<Response> {
    let served = app.served()?;
    request.check()?;
    let max_tokens =
        fields::max_tokens(&[("max_output_tokens", request.max_output_tokens)], app.options.max_tokens)?;
    let logprobs = request.logprobs()?;
    let messages = request.messages();
    let continues = messages.last().is_some_and(|message| message.role == "assistant");
    let rendering = Rendering { continues, add_generation_prompt: true, ..Rendering::default() };
    let job =
        Job { logprobs, ..served.answer_job(&sampling, Stop::texts(None, served), max_tokens, &rendering)? };
    let tools = request.tools.clone().filter(Value::is_array).unwrap_or(json!([]));
    let tool_choice = request.tool_choice.clone().filter(|choice| !choice.is_null());
    let reply = Reply {
        app: app.clone(),
        id: super::new_id("resp_"),
        message_id: super::new_id("msg_"),
        created: super::now(),
        has_timings: request.timings_per_token.unwrap_or(false),
        has_progress: request.return_progress.unwrap_or(false),
        fields: json!({
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata.clone().unwrap_or_default(),
            "temperature": job.sampling.temperature,
            "top_p": job.sampling.top_p,
            "top_logprobs": logprobs.unwrap_or(0),
            "tools": tools,
            "tool_choice": tool_choice.unwrap_or("auto".into()),
        }),
    };
    let is_stream = request.stream.unwrap_or(false);
    let generation = conversation::prompt(&app, messages, rendering)
        .await
        .and_then(|prompt| Generation::start(&app, served, vec![prompt], &job));
    match (is_stream, generation) {
        // Agents shorten the conversation when the stream says so. A status would end them.
        (true, Err(error)) if matches!(error.kind, Kind::ContextExceeded { .. }) => Ok(reply.refused(error)),
        (_, Err(error)) => Err(error),
        (true, Ok(generation)) => Ok(reply.stream(generation)),
        (false, Ok(generation)) => reply.whole(generation).await,
    }
}

struct Reply {
    app: Arc<App>,
    id: String,
    message_id: String,
    created: u64,
    /// What the answer tells of its request.
    fields: Value,
    has_timings: bool,
    has_progress: bool,
}

impl Reply {
    fn object(&self, status: &str, output: Value, usage: Value) -> Value {
        let mut object = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": null,
            "model": self.app.loaded().name,
            "output": output,
            "parallel_tool_calls": true,
            "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null},
            "service_tier": "default",
            "store": false,
            "text": {"format": {"type": "text"}},
            "truncation": "disabled",
            "usage": usage,
            "user": null,
        });
        if let (Some(object), Some(fields)) = (object.as_object_mut(), self.fields.as_object()) {
            object.extend(fields.clone());
        }
        object
    }

    fn part(served: &Served, text: &Complete) -> Value {
        let logprobs = contents(served, &text.tokens);
        json!({"type": "output_text", "text": text.text, "annotations": [], "logprobs": logprobs})
    }

    fn message(&self, status: &str, content: Value) -> Value {
        json!({
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        })
    }

    /// The whole answer, and the name of the event that ends a stream with it.
    fn ended(&self, text: &Complete, taken: Usage) -> (&'static str, Value) {
        let is_cut = text.end == End::Length;
        let status = if is_cut { "incomplete" } else { "completed" };
        let message = self.message(status, json!([Self::part(self.app.loaded(), text)]));
        let usage = json!({
            "input_tokens": taken.prompt,
            "input_tokens_details": {"cached_tokens": taken.cached},
            "output_tokens": taken.generated,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": taken.prompt + taken.generated,
        });
        let mut object = self.object(status, json!([message]), usage);
        if is_cut {
            object["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        (if is_cut { "response.incomplete" } else { "response.completed" }, object)
    }

    fn failed(&self, error: &ApiError) -> Value {
        let mut object = self.object("failed", json!([]), Value::Null);
        object["error"] = json!({"code": error.text_code(), "message": error.message});
        object
    }

    async fn whole(self, mut generation: Generation) -> Result<Response> {
        let text = generation.complete().await?.remove(0);
        Ok(Json(self.ended(&text, generation.usage()).1).into_response())
    }

    /// A stream that says that the request is refused.
    fn refused(self, error: ApiError) -> Response {
        sse::answer(stream! {
            let mut events = Events::default();
            let begun = self.object("in_progress", json!([]), Value::Null);
            yield events.next("response.created", json!({"response": begun}));
            yield events.next("response.failed", json!({"response": self.failed(&error)}));
        })
    }

    fn stream(self, mut generation: Generation) -> Response {
        sse::answer(stream! {
            let served = self.app.loaded();
            let mut events = Events::default();
            let begun = self.object("in_progress", json!([]), Value::Null);
            yield events.next("response.created", json!({"response": begun}));
            yield events.next("response.in_progress", json!({"response": begun}));
            let item = self.message("in_progress", json!([]));
            yield events.next("response.output_item.added", json!({"output_index": 0, "item": item}));
            let mut whole = Complete { text: String::new(), tokens: Vec::new(), end: End::Length };
            let of_part = |mut fields: Value| {
                fields["item_id"] = self.message_id.as_str().into();
                fields["output_index"] = 0.into();
                fields["content_index"] = 0.into();
                fields
            };
            let part = of_part(json!({"part": Self::part(served, &whole)}));
            yield events.next("response.content_part.added", part);
            loop {
                let (text, tokens, end) = match generation.next().await {
                    Ok(Some(Piece::Read { index })) => {
                        if self.has_progress {
                            let progress = generation.progress(index);
                            let mut read = json!({
                                "response": begun,
                                "prompt_progress": progress.prompt_progress(),
                            });
                            if self.has_timings {
                                read["timings"] = progress.timings();
                            }
                            yield events.next("response.in_progress", read);
                        }
                        continue;
                    }
                    Ok(Some(Piece::Text { text, tokens, .. })) => (text, tokens, None),
                    Ok(Some(Piece::End { text, tokens, end, .. })) => (text, tokens, Some(end)),
                    Ok(None) => break,
                    Err(error) => {
                        yield events.next("response.failed", json!({"response": self.failed(&error)}));
                        return;
                    }
                };
                if !text.is_empty() || !tokens.is_empty() {
                    let logprobs = contents(served, &tokens);
                    let mut delta = of_part(json!({"delta": text, "logprobs": logprobs}));
                    if self.has_timings {
                        delta["timings"] = generation.progress(0).timings();
                    }
                    yield events.next("response.output_text.delta", delta);
                }
                whole.text += &text;
                whole.tokens.extend(tokens);
                whole.end = end.unwrap_or(whole.end);
            }
            let (name, object) = self.ended(&whole, generation.usage());
            let done = json!({"text": whole.text, "logprobs": contents(served, &whole.tokens)});
            yield events.next("response.output_text.done", of_part(done));
            let part = of_part(json!({"part": Self::part(served, &whole)}));
            yield events.next("response.content_part.done", part);
            let item = json!({"output_index": 0, "item": object["output"][0]});
            yield events.next("response.output_item.done", item);
            let mut last = json!({"response": object});
            if self.has_timings {
                last["timings"] = generation.progress(0).timings();
            }
            yield events.next(name, last);
        })
    }
}

/// The events of a stream, which are numbered.
#[derive(Default)]
struct Events {
    number: u64,
}

impl Events {
    fn next(&mut self, name: &str, mut fields: Value) -> Event {
        fields["type"] = name.into();
        fields["sequence_number"] = self.number.into();
        self.number += 1;
        sse::named(name, &fields)
    }
}
