//! `GET /health`, `/props` and `/slots`: what the server is and does. `POST /slots/{id}`: prompts that were
//! read are saved, restored and forgotten.
//!
//! Any sequence finds the prompts in the cache, wherever it runs. So a slot's prompt is a name for the one
//! that ran there last, or that a request gave this slot's number.

use super::{
    app::{App, Served},
    body::Body,
    error::{ApiError, Kind, Result},
    native,
};
use crate::{
    buffers::BLOCK,
    engine::{OwnedPrompt, SavedPrompt},
    error::Error,
};
use axum::{
    Json,
    extract::{FromRequest, Path, Query, Request, State},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Instant,
};
use utoipa::ToSchema;

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
        "is_sleeping": served.worker.is_asleep(),
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

/// The longest name of a file, in bytes, with room for what is added while it is written.
const MAX_NAME: usize = 200;

/// The file of a saved prompt.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SlotFile {
    /// Its name in the folder that the server was started with.
    filename: String,
}

impl SlotFile {
    /// Where it is.
    ///
    /// # Errors
    /// NotSupported if the server has no folder for such files, InvalidRequest if the name would lead
    /// elsewhere.
    fn path(&self, app: &App) -> Result<PathBuf> {
        let Some(folder) = &app.options.slot_save_path else {
            let what = "this server was started without --slot-save-path, the folder for such files";
            return Err(ApiError::new(Kind::NotSupported, what));
        };
        // What some system does not take.
        let is_odd = |c: char| c.is_control() || "/\\:*?\"<>|".contains(c);
        let name = &self.filename;
        let is_name = !name.is_empty() && name.len() <= MAX_NAME && !name.contains(is_odd);
        if !is_name || name.starts_with('.') || name.ends_with(['.', ' ']) {
            return Err(ApiError::field("filename", format_args!("is {name:?}, which is not a file's name")));
        }
        let path = folder.join(name);
        match path.is_dir() {
            false => Ok(path),
            true => Err(ApiError::field("filename", format_args!("is {name:?}, which is a folder"))),
        }
    }

    /// An error about it, without the folder, which is nobody's business.
    fn error(&self, error: &Error, path: &FilePath) -> ApiError {
        let error = ApiError::from(error);
        let message = error.message.replace(&path.display().to_string(), &self.filename);
        ApiError { message, param: Some("filename".to_owned()), ..error }
    }
}

/// Saves the prompt that a slot had last to a file, restores one into the cache, or forgets it.
#[utoipa::path(
    post,
    path = "/slots/{id}",
    params(
        ("id" = i64, Path, description = "The slot"),
        ("action" = String, Query, description = "save, restore or erase")
    ),
    request_body = Option<SlotFile>,
    responses((status = 200, description = "What was done", body = Object))
)]
pub async fn act(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(asked): Query<HashMap<String, String>>,
    request: Request,
) -> Result<Json<Value>> {
    let served = app.served()?;
    let slot = id.parse().ok().filter(|slot: &u32| (*slot as usize) < served.parallel).ok_or_else(|| {
        let what = format!("is {id:?}, but the slots are 0 to {}", served.parallel - 1);
        ApiError::field("id", what)
    })?;
    let action = asked.get("action").cloned().unwrap_or_default();
    if action == "erase" {
        return super::on_a_thread(&app, move |served| erase(served, slot)).await;
    }
    if !["save", "restore"].contains(&action.as_str()) {
        let what = format!("is {action:?}, but it must be save, restore or erase");
        return Err(ApiError::field("action", what));
    }
    let Body((file,)) = Body::<(SlotFile,)>::from_request(request, &app).await?;
    let path = file.path(&app)?;
    super::on_a_thread(&app, move |served| match action.as_str() {
        "save" => save(served, slot, &file, &path),
        _ => restore(served, slot, &file, &path),
    })
    .await
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The size of a file.
fn bytes_of(path: &FilePath) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

fn save(served: &Served, slot: u32, file: &SlotFile, path: &FilePath) -> Result<Json<Value>> {
    let start = Instant::now();
    let prompt = served.slot_prompts.get(slot);
    let is_long = prompt.tokens.len() >= BLOCK as usize;
    let saved = served.worker.with(move |engine| engine.save_prompt(&*prompt))?;
    if is_long && saved.tokens().is_empty() {
        let what = format!("the cache no longer has the prompt of slot {slot}: ask it again, then save it");
        return Err(ApiError::new(Kind::InvalidRequest, what));
    }
    saved.write(path).map_err(|error| file.error(&error, path))?;
    Ok(Json(json!({
        "id_slot": slot,
        "filename": file.filename,
        "n_saved": saved.tokens().len(),
        "n_written": bytes_of(path),
        "timings": {"save_ms": millis(start)},
    })))
}

fn restore(served: &Served, slot: u32, file: &SlotFile, path: &FilePath) -> Result<Json<Value>> {
    let start = Instant::now();
    let saved = SavedPrompt::read(path).map_err(|error| file.error(&error, path))?;
    let adapters = Some(saved.adapters().to_vec());
    let prompt = OwnedPrompt { adapters, ..saved.tokens().to_vec().into() };
    let restored = served.worker.with(move |engine| engine.restore_prompt(&saved))?;
    served.slot_prompts.set(slot, Arc::new(prompt));
    Ok(Json(json!({
        "id_slot": slot,
        "filename": file.filename,
        "n_restored": restored,
        "n_read": bytes_of(path),
        "timings": {"restore_ms": millis(start)},
    })))
}

fn erase(served: &Served, slot: u32) -> Result<Json<Value>> {
    let prompt = served.slot_prompts.get(slot);
    let erased = served.worker.with(move |engine| Ok(engine.forget_prompt(&*prompt)))?;
    Ok(Json(json!({"id_slot": slot, "n_erased": erased})))
}
