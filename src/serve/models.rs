//! `GET /v1/models`: the one model that there is.

use super::{
    app::{App, Served},
    error::{ApiError, Kind, Result},
};
use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::UNIX_EPOCH};

fn model(app: &App, served: &Served) -> Value {
    let (architecture, created) = (&served.model.architecture, app.started.duration_since(UNIX_EPOCH));
    json!({
        "id": served.name,
        "object": "model",
        "created": created.map_or(0, |time| time.as_secs()),
        "owned_by": "wgpt",
        "max_model_len": served.context,
        "meta": {
            "n_vocab": architecture.vocab_size,
            "n_ctx": served.context,
            "n_ctx_train": architecture.max_positions,
            "n_embd": architecture.hidden_size,
            "n_params": served.model.checkpoint.values(),
            "size": served.weights_bytes,
        },
    })
}

/// Lists the model.
#[utoipa::path(
    get,
    path = "/v1/models",
    responses((status = 200, description = "The models", body = Object))
)]
pub async fn models(State(app): State<Arc<App>>) -> Result<Json<Value>> {
    let served = app.model()?;
    // Codex and clients of Ollama read `models`.
    let capabilities = match served.model.architecture.vision {
        Some(_) => json!(["completion", "multimodal"]),
        None => json!(["completion"]),
    };
    let named = json!({
        "name": served.name,
        "model": served.name,
        "slug": served.name,
        "type": "model",
        "capabilities": capabilities,
    });
    Ok(Json(json!({"object": "list", "data": [model(&app, served)], "models": [named]})))
}

/// Describes the model, by its name.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    params(("id" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "The model", body = Object),
        (status = 404, description = "There is no such model", body = Object),
    )
)]
pub async fn one_model(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>> {
    let served = app.model()?;
    match id == served.name {
        true => Ok(Json(model(&app, served))),
        false => Err(ApiError::new(
            Kind::NotFound,
            format!("there is no model {id}: this server has {}", served.name),
        )),
    }
}
