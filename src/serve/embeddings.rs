//! `POST /v1/embeddings`: the embeddings of texts.

use super::{
    app::{App, Served},
    body::Body,
    completions,
    error::{ApiError, Kind, Result},
    generation::{Tokens, unless_cut},
    prompt::Prompts,
};
use crate::{
    embedding::Pooling,
    engine::{Goal, Happened},
};
use axum::{Json, extract::State};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;
use utoipa::ToSchema;

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbeddingsRequest {
    /// A text, a list of token ids, or a list of texts or of such lists.
    #[serde(alias = "content")]
    pub input: Prompts,
    /// Any name is taken.
    #[serde(default)]
    #[expect(dead_code, reason = "read only to check its type")]
    pub model: Option<String>,
    /// Default: float.
    #[serde(default)]
    pub encoding_format: Option<Encoding>,
    /// How the states of a text's tokens become one. Default: as the server was started with, else as the
    /// model's files say, else by mean.
    #[serde(default)]
    pub pooling: Option<PoolingName>,
    #[serde(default)]
    #[schema(ignore)]
    pub dimensions: Option<u64>,
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Float,
    /// f32, the lowest byte first.
    Base64,
}

/// The names of the ways to pool.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolingName {
    Mean,
    Last,
    Cls,
}

impl PoolingName {
    fn pooling(self) -> Pooling {
        match self {
            Self::Mean => Pooling::Mean,
            Self::Last => Pooling::Last,
            Self::Cls => Pooling::Cls,
        }
    }
}

/// Embeds texts.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    request_body = EmbeddingsRequest,
    responses((status = 200, description = "The embeddings", body = Object))
)]
pub async fn embeddings(
    State(app): State<Arc<App>>,
    Body((request,)): Body<(EmbeddingsRequest,)>,
) -> Result<Json<Value>> {
    let served = app.served()?;
    let hidden = served.model.architecture.hidden_size as usize;
    if request.dimensions.is_some_and(|dimensions| dimensions != hidden as u64) {
        let what = format!("is not supported other than {hidden}, which the model has: leave it away");
        return Err(ApiError::field("dimensions", what));
    }
    let pooling = request.pooling.map(PoolingName::pooling).or(app.options.pooling).or(served.model.pooling);
    let texts = completions::tokens(&app, &request.input).await?;
    let count: usize = texts.iter().map(|text| text.ids.len()).sum();
    let all = embed(&app, served, texts, pooling.unwrap_or(Pooling::Mean)).await?;
    let is_base64 = request.encoding_format == Some(Encoding::Base64);
    let data = all.iter().enumerate().map(|(index, embedding)| {
        let embedding = match is_base64 {
            true => {
                let bytes: Vec<u8> = embedding.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(BASE64_STANDARD.encode(bytes))
            }
            false => json!(embedding),
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    Ok(Json(json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": served.name,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    })))
}

/// The embeddings of some texts, in order.
async fn embed(
    app: &Arc<App>,
    served: &Served,
    texts: Vec<Tokens>,
    pooling: Pooling,
) -> Result<Vec<Vec<f32>>> {
    for text in &texts {
        let (tokens, context) = (text.ids.len(), served.context);
        if tokens == 0 {
            return Err(ApiError::field("input", "is empty, and no token starts it: give it a text"));
        }
        if tokens > context {
            let what = format!("the text has {tokens} tokens, but the context holds {context}: shorten it");
            return Err(ApiError::new(Kind::ContextExceeded { tokens, context }, what));
        }
    }
    let adapters = served.adapters.scales();
    let mut embeddings = Vec::with_capacity(texts.len());
    let hidden = served.model.architecture.hidden_size as usize;
    // As many as run at once. The others wait here, for a list may be long.
    let _admitted = app.admit(served, texts.len().min(served.parallel))?;
    for group in texts.chunks(served.parallel) {
        let (to, mut told) = mpsc::unbounded_channel();
        let mut running: Vec<_> = Vec::new();
        for (index, text) in group.iter().enumerate() {
            let to = to.clone();
            let sink = Box::new(move |outcome| drop(to.send((index, outcome))));
            let goal = Goal::Hidden { from: pooling.from(text.ids.len()) };
            running.push((served.worker.send(text.prompt(&adapters), goal, sink), Vec::new()));
        }
        let mut left = group.len();
        while left > 0 {
            let (index, outcome): (usize, Result<_, Arc<crate::error::Error>>) =
                unless_cut(app, told.recv()).await?;
            match outcome.map_err(|error| ApiError::from(&*error))? {
                Happened::Hidden(states) => running[index].1.extend(states),
                Happened::Finished(_) => left -= 1,
                _ => (),
            }
        }
        for (_, states) in &running {
            embeddings.push(pooling.pool(states, hidden)?);
        }
    }
    Ok(embeddings)
}
