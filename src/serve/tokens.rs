//! `POST /tokenize`, `/detokenize` and `/apply-template`: texts ↔ token ids, as the model's files define
//! them.

use super::{
    app::App,
    body::Body,
    conversation::{self, ConversationFields},
    error::Result,
    prompt::{self, Prompt, TokenId},
};
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// A text to tokenize.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// A text, or a list of texts and ids.
    #[serde(alias = "prompt")]
    pub content: Prompt,
    /// Whether to add the tokens that start every text.
    #[serde(default)]
    pub add_special: Option<bool>,
    /// Whether the answer tells the text of each token.
    #[serde(default)]
    pub with_pieces: Option<bool>,
}

/// Tokens to spell.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DetokenizeRequest {
    #[schema(value_type = Vec<TokenId>)]
    pub tokens: Vec<u32>,
}

/// A text → its token ids.
#[utoipa::path(
    post,
    path = "/tokenize",
    request_body = TokenizeRequest,
    responses((status = 200, description = "The ids", body = Object))
)]
pub async fn tokenize(
    State(app): State<Arc<App>>,
    Body((request,)): Body<(TokenizeRequest,)>,
) -> Result<Json<Value>> {
    app.served()?;
    let (add_special, with_pieces) =
        (request.add_special.unwrap_or(false), request.with_pieces.unwrap_or(false));
    super::on_a_thread(&app, move |served| {
        let tokens = request.content.ids(served, "content", add_special)?;
        if !with_pieces {
            return Ok(Json(json!({"tokens": tokens})));
        }
        let pieces = tokens.iter().map(|id| {
            let bytes = served.tokenizer.token_bytes(*id);
            // What is no text by itself is given as its bytes.
            let piece = String::from_utf8(bytes).map_or_else(|e| json!(e.into_bytes()), |text| json!(text));
            json!({"id": id, "piece": piece})
        });
        Ok(Json(json!({"tokens": pieces.collect::<Vec<_>>()})))
    })
    .await
}

/// Token ids → their text.
#[utoipa::path(
    post,
    path = "/detokenize",
    request_body = DetokenizeRequest,
    responses((status = 200, description = "The text", body = Object))
)]
pub async fn detokenize(
    State(app): State<Arc<App>>,
    Body((request,)): Body<(DetokenizeRequest,)>,
) -> Result<Json<Value>> {
    let served = app.served()?;
    prompt::check_ids(served, "tokens", &request.tokens)?;
    Ok(Json(json!({"content": served.tokenizer.decode(&request.tokens, false)})))
}

/// A conversation → the prompt that the model's chat template makes of it.
#[utoipa::path(
    post,
    path = "/apply-template",
    request_body = ConversationFields,
    responses((status = 200, description = "The prompt", body = Object))
)]
pub async fn apply_template(
    State(app): State<Arc<App>>,
    Body((conversation,)): Body<(ConversationFields,)>,
) -> Result<Json<Value>> {
    app.served()?;
    let rendering = conversation.rendering()?;
    let prompt = conversation::text(&app, conversation.messages, rendering).await?;
    Ok(Json(json!({"prompt": prompt})))
}
