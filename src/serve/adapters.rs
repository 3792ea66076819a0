//! `GET` and `POST /lora-adapters`: the model's low-rank adapters, and how much of each applies where a
//! request does not say it.

use super::{adapter_scales::AdapterScale, app::App, body::List, error::Result};
use axum::{Json, extract::State};
use serde_json::{Value, json};
use std::sync::Arc;

/// The adapters of the model.
#[utoipa::path(
    get,
    path = "/lora-adapters",
    responses((status = 200, description = "The adapters", body = Vec<Object>))
)]
pub async fn adapters(State(app): State<Arc<App>>) -> Result<Json<Value>> {
    let served = app.model()?;
    let scales = served.adapters.scales();
    let adapters = served.model.adapters.iter().zip(scales.iter()).enumerate();
    let adapters = adapters.map(|(id, (adapter, scale))| {
        json!({"id": id, "path": adapter.path.display().to_string(), "scale": scale})
    });
    Ok(Json(adapters.collect()))
}

/// Sets how much of each adapter applies where a request does not say it; of those that are not listed,
/// nothing does.
#[utoipa::path(
    post,
    path = "/lora-adapters",
    request_body = Vec<AdapterScale>,
    responses((status = 200, description = "They are set", body = Object))
)]
pub async fn set_adapters(
    State(app): State<Arc<App>>,
    List(listed): List<AdapterScale>,
) -> Result<Json<Value>> {
    let adapters = &app.served()?.adapters;
    adapters.set(adapters.of(&listed, "the list")?);
    Ok(Json(json!({"success": true})))
}
