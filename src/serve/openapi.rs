//! `GET /openapi.json`: the endpoints, described from the types that read them.

use super::{
    anthropic, chat_completions, completions, embeddings, metrics, models, native, responses,
    sampling::SamplingFields, slots, tokens,
};
use axum::Json;
use utoipa::{
    OpenApi,
    openapi::{AllOfBuilder, OpenApi as Document, Ref, RefOr},
};

/// Language models on any GPU, behind OpenAI's, Anthropic's and llama-server's APIs.
#[derive(OpenApi)]
#[openapi(
    paths(
        slots::health,
        models::models,
        models::one_model,
        slots::props,
        slots::slots,
        metrics::metrics,
        chat_completions::chat_completions,
        completions::completions,
        native::completion,
        responses::responses,
        anthropic::messages,
        anthropic::count_tokens,
        embeddings::embeddings,
        tokens::tokenize,
        tokens::detokenize,
        tokens::apply_template,
    ),
    components(schemas(SamplingFields))
)]
struct Description;

/// The endpoints whose requests also have the fields of [`SamplingFields`].
const SAMPLING: [&str; 5] =
    ["/v1/chat/completions", "/v1/completions", "/completion", "/v1/responses", "/v1/messages"];

fn description() -> Document {
    let mut description = Description::openapi();
    for path in SAMPLING {
        let post = description.paths.paths.get_mut(path).and_then(|item| item.post.as_mut());
        let Some(RefOr::T(body)) = post.and_then(|post| post.request_body.as_mut()) else { continue };
        for content in body.content.values_mut() {
            if let RefOr::T(content) = content
                && let Some(own) = content.schema.take()
            {
                let both = AllOfBuilder::new().item(own).item(Ref::from_schema_name("SamplingFields"));
                content.schema = Some(both.into());
            }
        }
    }
    description
}

/// The description of all endpoints.
pub async fn openapi() -> Json<Document> {
    Json(description())
}
