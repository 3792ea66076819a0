//! `GET /openapi.json`: the endpoints, described from the types that read them.

use super::{
    adapters, anthropic,
    app::{App, Served},
    chat_completions, completions, embeddings,
    error::Result,
    fields::RunFields,
    metrics, models, native,
    prompt::TokenId,
    responses,
    sampling::SamplingFields,
    slots, tokens,
};
use axum::{Json, extract::State};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::OpenApi;

/// Language models on any GPU, behind OpenAI's, Anthropic's and llama-server's APIs.
#[derive(OpenApi)]
#[openapi(
    paths(
        slots::health,
        models::models,
        models::one_model,
        slots::props,
        slots::slots,
        slots::act,
        metrics::metrics,
        chat_completions::chat_completions,
        chat_completions::input_tokens,
        completions::completions,
        native::completion,
        responses::responses,
        anthropic::messages,
        anthropic::count_tokens,
        embeddings::embeddings,
        tokens::tokenize,
        tokens::detokenize,
        tokens::apply_template,
        adapters::adapters,
        adapters::set_adapters,
    ),
    components(schemas(RunFields, SamplingFields, TokenId))
)]
struct Description;

/// The endpoints whose requests have further groups of fields.
const GROUPS: [(&str, &[&str]); 5] = [
    ("/v1/chat/completions", &["ConversationFields", "SamplingFields", "RunFields"]),
    ("/v1/completions", &["SamplingFields", "RunFields"]),
    ("/completion", &["SamplingFields", "RunFields"]),
    ("/v1/responses", &["SamplingFields"]),
    ("/v1/messages", &["SamplingFields"]),
];

/// The statuses of errors that any endpoint may answer with.
const ERRORS: [(u16, &str); 7] = [
    (400, "The request is wrong"),
    (401, "A key is needed"),
    (413, "The body is too large"),
    (429, "Too many requests wait already"),
    (500, "The engine failed"),
    (501, "Switched off"),
    (503, "The model is being loaded, or the server is about to stop"),
];

/// The description, with what depends on the model.
fn description(served: &Served) -> Value {
    let mut description = json!(Description::openapi());
    for (path, groups) in GROUPS {
        let content = &mut description["paths"][path]["post"]["requestBody"]["content"];
        let schema = &mut content["application/json"]["schema"];
        let further = groups.iter().map(|group| json!({"$ref": format!("#/components/schemas/{group}")}));
        *schema = json!({"allOf": std::iter::once(schema.take()).chain(further).collect::<Vec<_>>()});
    }
    let chat = &mut description["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"];
    if let Some(all) = chat["application/json"]["schema"]["allOf"].as_array_mut() {
        let some = json!({"top_logprobs": {"minimum": 1, "type": "integer"}});
        let asks = json!({"required": ["top_logprobs"], "properties": some});
        let has = json!({"required": ["logprobs"], "properties": {"logprobs": {"const": true}}});
        all.push(json!({"if": asks, "then": has}));
    }
    let both = json!({"continue_final_message": {"const": true}, "add_generation_prompt": {"const": true}});
    let required = json!(["continue_final_message", "add_generation_prompt"]);
    description["components"]["schemas"]["ConversationFields"]["not"] =
        json!({"required": required, "properties": both});
    let methods = description["paths"].as_object_mut().into_iter().flatten();
    for operation in methods.flat_map(|(_, methods)| methods.as_object_mut().into_iter().flatten()) {
        for (status, what) in ERRORS {
            let schema = json!({"type": "object", "required": ["error"]});
            let content = json!({"application/json": {"schema": schema}});
            operation.1["responses"][status.to_string()] = json!({"description": what, "content": content});
        }
    }
    let last = json!(served.parallel - 1);
    let parameters = description["paths"]["/slots/{id}"]["post"]["parameters"].as_array_mut();
    for parameter in parameters.into_iter().flatten() {
        let limits = match parameter["name"].as_str() {
            Some("action") => json!({"type": "string", "enum": ["save", "restore", "erase"]}),
            _ => json!({"type": "integer", "minimum": 0, "maximum": last}),
        };
        parameter["schema"] = limits;
    }
    let schemas = &mut description["components"]["schemas"];
    schemas["RunFields"]["properties"]["id_slot"]["maximum"] = last;
    schemas["TokenId"]["maximum"] = json!(served.model.architecture.vocab_size - 1);
    if served.model.architecture.vision.is_none()
        && let Some(parts) = schemas["ContentPart"]["oneOf"].as_array_mut()
    {
        parts.retain(|part| {
            !part["required"]
                .as_array()
                .is_some_and(|fields| fields.iter().any(|field| field == "image_url" || field == "source"))
        });
    }
    description
}

/// The description of all endpoints.
pub async fn openapi(State(app): State<Arc<App>>) -> Result<Json<Value>> {
    Ok(Json(description(app.served()?)))
}
