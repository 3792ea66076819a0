//! Which endpoint answers which path.

use super::{
    access, adapters, anthropic,
    app::App,
    chat_completions, completions, embeddings,
    error::{ApiError, Kind},
    metrics, models, native, openapi, page, responses, slots, tokens,
};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::Uri,
    middleware::from_fn_with_state,
    routing::{get, post},
};
use std::sync::Arc;

/// All endpoints.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/health", get(slots::health))
        .route("/v1/health", get(slots::health))
        .route("/v1/models", get(models::models))
        .route("/models", get(models::models))
        // Names of the Hub have a slash.
        .route("/v1/models/{*id}", get(models::one_model))
        .route("/props", get(slots::props))
        .route("/slots", get(slots::slots))
        .route("/slots/{id}", post(slots::act))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .route("/v1/chat/completions", post(chat_completions::chat_completions))
        .route("/chat/completions", post(chat_completions::chat_completions))
        .route("/v1/chat/completions/input_tokens", post(chat_completions::input_tokens))
        .route("/chat/completions/input_tokens", post(chat_completions::input_tokens))
        .route("/v1/completions", post(completions::completions))
        .route("/completion", post(native::completion))
        .route("/completions", post(native::completion))
        .route("/v1/responses", post(responses::responses))
        .route("/responses", post(responses::responses))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/embeddings", post(embeddings::embeddings))
        .route("/embedding", post(embeddings::embeddings))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/apply-template", post(tokens::apply_template))
        .route("/lora-adapters", get(adapters::adapters).post(adapters::set_adapters));
    if app.options.has_page {
        router = router.route("/", get(page::page)).route("/index.html", get(page::page));
    }
    let max_body = app.options.max_body;
    router
        .fallback(async |uri: Uri| {
            ApiError::new(Kind::NotFound, format!("there is nothing at {}: see /openapi.json", uri.path()))
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(
                Kind::MethodNotAllowed,
                "this path is asked in another way: with GET or POST, see /openapi.json",
            )
        })
        .layer(DefaultBodyLimit::max(max_body))
        .layer(from_fn_with_state(app.clone(), access::dress))
        .with_state(app)
}
