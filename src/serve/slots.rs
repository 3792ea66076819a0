//! `GET /health`, `/props` and `/slots`: what the server is and does.

use super::{
    app::App,
    error::{ApiError, Kind, Result},
    native,
};
use axum::{Json, extract::State};
use serde_json::{Value, json};
use std::sync::Arc;

/// Whether it takes requests.
#[utoipa::path(
    get,
    path = "/health",
    responses(
        (status = 200, description = "It takes requests", body = Object),
        (status = 503, description = "The model is being loaded, or the server stops", body = Object),
    )
)]
pub async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>> {
    app.served()?;
    match app.is_healthy() {
        true => Ok(Json(json!({"status": "ok"}))),
        false => Err(ApiError::new(Kind::Unavailable, "the server is about to stop: ask another")),
    }
}

/// What the model and the settings are.
#[utoipa::path(get, path = "/props", responses((status = 200, description = "Properties", body = Object)))]
pub async fn props(State(app): State<Arc<App>>) -> Result<Json<Value>> {
    let served = app.model()?;
    let token = |name: &str| served.model.special_tokens.get(name).cloned().unwrap_or_default();
    let params = native::settings(&served.sampling, app.options.max_tokens, &[]);
    Ok(Json(json!({
        "default_generation_settings": {"id": 0, "n_ctx": served.context, "params": params},
        "total_slots": served.parallel,
        "model_alias": served.name,
        "model_path": app.options.model,
        "modalities": {"vision": served.model.architecture.vision.is_some(), "audio": false},
        "chat_template": served.model.chat_template.clone().unwrap_or_default(),
        "bos_token": token("bos_token"),
        "eos_token": token("eos_token"),
        "build_info": super::fingerprint(),
        "is_sleeping": false,
    })))
}

/// The places of running sequences.
#[utoipa::path(
    get,
    path = "/slots",
    responses(
        (status = 200, description = "The slots", body = Vec<Object>),
        (status = 501, description = "Switched off", body = Object),
    )
)]
pub async fn slots(State(app): State<Arc<App>>) -> Result<Json<Value>> {
    let served = app.model()?;
    if !app.options.has_slots {
        return Err(ApiError::new(Kind::NotSupported, "this server was started with --no-slots"));
    }
    let running = served.running();
    let slot = |id: usize| {
        let progress = running.iter().find(|progress| progress.slot as usize == id);
        json!({
            "id": id,
            "n_ctx": served.context,
            "speculative": false,
            "is_processing": progress.is_some(),
            "n_prompt_tokens": progress.map_or(0, |slot| slot.prompt_tokens),
            "n_prompt_tokens_processed": progress.map_or(0, |slot| slot.read),
            "n_prompt_tokens_cache": progress.map_or(0, |slot| slot.cached),
            "next_token": [{
                "has_next_token": progress.is_some(),
                "n_decoded": progress.map_or(0, |slot| slot.generated),
                "n_remain": progress
                    .and_then(|slot| Some(slot.max_tokens?.saturating_sub(slot.generated)))
                    .map_or(-1, |count| count as i64),
            }],
        })
    };
    Ok(Json((0..served.parallel).map(slot).collect()))
}
