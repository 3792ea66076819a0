//! The HTTP server: OpenAI's, Anthropic's and llama-server's dialects over one engine.
//!
//! ```text
//! request ─► access ─► endpoint: fields ─► conversation or prompt ─► Generation ─► pieces ─► answer
//!                                                                      └► Worker: the engine
//! ```
//!
//! All requests share the weights, the steps and the cache. Each gets the tokens and log-probabilities that
//! it would get alone, to the bit: see [`crate::scheduler`]. An endpoint is a file; what they share is in
//! `generation` (sequences → pieces of text), `conversation` and `prompt` (→ token ids), `sampling` (the
//! fields that say how tokens are picked), `body` (JSON → fields) and `error`.

#![allow(unused_qualifications, reason = "utoipa's macros write them")]

mod access;
mod adapter_scales;
mod adapters;
mod anthropic;
mod app;
mod body;
mod chat_completions;
mod completions;
mod connections;
mod conversation;
mod embeddings;
mod error;
mod fields;
mod generation;
mod metrics;
mod models;
mod native;
mod openapi;
mod page;
mod progress;
mod prompt;
mod remote_images;
mod responses;
mod routes;
mod sampling;
mod slot_prompts;
mod slots;
mod sse;
mod tokens;

use crate::{
    embedding::Pooling,
    engine::{Engine, Sleep},
    error::Result as WgptResult,
    model::Model,
    tokenizer::Tokenizer,
};
use app::{App, Served};
use error::{ApiError, Kind, Result};
use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    pub host: String,
    /// 0: any free port.
    pub port: u16,
    /// Where the model is from: a file, a folder or a name on the Hub. Empty: the one built in.
    pub model: String,
    /// The model's name in answers. None: its own.
    pub alias: Option<String>,
    /// How many sequences may wait.
    pub max_queue: usize,
    /// The largest body of a request in bytes.
    pub max_body: usize,
    /// Any of these opens the server. Empty: it is open.
    pub api_keys: Vec<String>,
    /// The origins of pages that browsers let ask this server; `*` for all. Empty: only its own page.
    pub cors_origins: Vec<String>,
    /// The hosts that images may be fetched from; `*` for all that are public. Empty: none are fetched.
    pub image_hosts: Vec<String>,
    /// The most tokens of an answer where a request does not say it. None: to the end of the context.
    pub max_tokens: Option<usize>,
    /// How tokens are picked where a request does not say it. None: as the model's files say.
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    /// What chance starts from where a request does not say it. None: random.
    pub seed: Option<u64>,
    /// In place of the model's own template.
    pub chat_template: Option<String>,
    /// How to pool embeddings where a request does not say it. None: as the model's files say.
    pub pooling: Option<Pooling>,
    /// How long requests may run on once the server is asked to stop.
    pub drain_timeout: Duration,
    pub has_metrics: bool,
    pub has_slots: bool,
    pub has_page: bool,
    /// The folder of the prompts that are saved. None: none can be.
    pub slot_save_path: Option<PathBuf>,
    /// Whether a text goes on where the context is full, without some of its tokens.
    pub shifts_context: bool,
}

/// A model that is loaded, and when to put it away while nobody asks for anything. None: never.
pub struct Loaded {
    pub model: Arc<Model>,
    pub tokenizer: Tokenizer,
    pub engine: Engine,
    pub sleep: Option<Sleep>,
}

/// Serves until SIGTERM, or until `interrupted`, which is asked now and then, returns true. Listens at once,
/// and answers once `load` has loaded the model. `listening` is called with the address.
///
/// # Errors
/// Of the kind Request where the address cannot be listened at; those of `load`.
pub fn serve(
    options: Options,
    load: impl FnOnce() -> WgptResult<Loaded> + Send + 'static,
    listening: impl FnOnce(SocketAddr),
    interrupted: impl Fn() -> bool,
) -> WgptResult<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| crate::error::Error::run(format!("the server cannot start: {e}")).because(e))?;
    let app = Arc::new(App::new(options)?);
    let outcome = runtime.block_on(async {
        let listener = connections::listen(&app.options).await?;
        listening(listener.local_addr().expect("a bound socket has an address"));
        let (to, loaded) = tokio::sync::oneshot::channel();
        let of_app = app.clone();
        std::thread::spawn(move || {
            let served = load().and_then(|loaded| Served::new(&of_app.options, loaded));
            let _ = to.send(served.map(|served| of_app.serve(served)));
        });
        connections::run(&app, listener, loaded, interrupted).await
    });
    // What waits on a thread, such as reading a huge prompt, does not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Runs what takes time, such as tokenizing, on a thread of its own.
async fn on_a_thread<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&Served) -> Result<T> + Send + 'static,
) -> Result<T> {
    let _turn = app.threads.acquire().await.expect("it is never closed");
    let app = app.clone();
    let done = tokio::task::spawn_blocking(move || work(app.loaded())).await;
    done.unwrap_or_else(|_| Err(ApiError::new(Kind::Server, "the request could not be worked on: report it")))
}

/// A new identifier, such as `chatcmpl-…`.
fn new_id(prefix: &str) -> String {
    let random = || RandomState::new().hash_one(());
    format!("{prefix}{:016x}{:08x}", random(), random() as u32)
}

/// The time in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// What answered, as OpenAI's `system_fingerprint`: the same program on the same model gives the same
/// answers.
fn fingerprint() -> String {
    format!("build-{}", env!("WGPT_VERSION").replace(" (", "-").replace(')', ""))
}
