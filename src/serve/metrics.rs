//! `GET /metrics`: what was counted, by llama-server's names and by vLLM's, which routers know.

use super::{
    app::{App, Served},
    error::{ApiError, Kind, Result},
    generation::End,
    progress::Progress,
};
use crate::buffers::BLOCK;
use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, UNIX_EPOCH},
};

type Seconds = Counter<f64, AtomicU64>;
type Level = Gauge<f64, AtomicU64>;

/// Upper bounds of histograms, in seconds: from a thousandth to some minutes.
const BOUNDS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0,
    60.0, 120.0, 300.0,
];

/// Why a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Finished {
    finished_reason: &'static str,
}

/// What is counted.
pub struct Metrics {
    registry: Registry,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    read_tokens: Counter,
    prompt_seconds: Seconds,
    generated_tokens: Counter,
    generated_seconds: Seconds,
    /// The tokens after each request's first.
    decoded_tokens: Counter,
    longest: AtomicU64,
    preemptions: Counter,
    finished: Family<Finished, Counter>,
    time_to_first_token: Histogram,
    between_tokens: Histogram,
    time_per_token: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    levels: Levels,
    last_scrape: Mutex<Scrape>,
}

/// What is measured when it is asked for.
#[derive(Default)]
struct Levels {
    running: Level,
    waiting: Level,
    cache_usage: Level,
    prompt_rate: Level,
    generated_rate: Level,
    running_per_step: Level,
    steps: Counter,
    longest: Counter,
    drafts: Counter,
    guesses: Counter,
    right_guesses: Counter,
}

/// What was counted when it was asked for last: rates are of what came since.
#[derive(Clone, Copy, Debug, Default)]
struct Scrape {
    read_tokens: u64,
    prompt_seconds: f64,
    decoded_tokens: u64,
    generated_seconds: f64,
}

fn histogram() -> Histogram {
    Histogram::new(BOUNDS)
}

impl Metrics {
    /// For a model with this name, and a cache of so many blocks.
    pub fn new(name: &str, blocks: usize) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            read_tokens: Counter::default(),
            prompt_seconds: Seconds::default(),
            generated_tokens: Counter::default(),
            generated_seconds: Seconds::default(),
            decoded_tokens: Counter::default(),
            longest: AtomicU64::new(0),
            preemptions: Counter::default(),
            finished: Family::default(),
            time_to_first_token: histogram(),
            between_tokens: histogram(),
            time_per_token: histogram(),
            end_to_end: histogram(),
            queue: histogram(),
            prefill: histogram(),
            decode: histogram(),
            levels: Levels::default(),
            last_scrape: Mutex::default(),
        };
        let mut registry = Registry::default();
        metrics.register_llama(&mut registry);
        let labels = [("model_name", name.to_owned()), ("engine", "0".to_owned())];
        let labels = labels.map(|(key, value)| (key.into(), value.into()));
        metrics.register_vllm(registry.sub_registry_with_labels(labels.into_iter()), blocks);
        metrics.registry = registry;
        metrics
    }

    /// llama-server's names. Counters are followed by `_total`.
    fn register_llama(&self, registry: &mut Registry) {
        let levels = &self.levels;
        let mut add = |name: &str, help: &str, metric: &dyn Cloned| {
            metric.register(registry, format!("llamacpp:{name}"), help);
        };
        add("prompt_tokens", "Tokens of prompts that were computed", &self.read_tokens);
        add("prompt_tokens_cached", "Tokens of prompts that were found in the cache", &self.cached_tokens);
        add("prompt_seconds", "Time from requests' starts to their first tokens", &self.prompt_seconds);
        add("tokens_predicted", "Tokens that were generated", &self.generated_tokens);
        add("tokens_predicted_seconds", "Time that these took, after the first", &self.generated_seconds);
        add("n_decode", "Steps of the model", &levels.steps);
        add("n_tokens_max", "The longest sequence", &levels.longest);
        add("spec_decode_num_drafts", "How often tokens were guessed", &levels.drafts);
        add("spec_decode_num_draft_tokens", "Tokens that were guessed", &levels.guesses);
        add("spec_decode_num_accepted_tokens", "Of these the right ones", &levels.right_guesses);
        add(
            "prompt_tokens_seconds",
            "Tokens of prompts per second, since this was last asked for",
            &levels.prompt_rate,
        );
        add(
            "predicted_tokens_seconds",
            "Generated tokens per second of a request, since this was last asked for",
            &levels.generated_rate,
        );
        add("requests_processing", "Sequences that run", &levels.running);
        add("requests_deferred", "Sequences that wait", &levels.waiting);
        add("n_busy_slots_per_decode", "Generated tokens per step", &levels.running_per_step);
    }

    fn register_vllm(&self, registry: &mut Registry, blocks: usize) {
        let cache = [("block_size", BLOCK.to_string()), ("num_gpu_blocks", blocks.to_string())];
        let info = Level::default();
        info.set(1.0);
        let labels = cache.map(|(key, value)| (key.into(), value.into()));
        registry.sub_registry_with_labels(labels.into_iter()).register(
            "vllm:cache_config_info",
            "The size of the cache, as labels",
            info,
        );
        let mut add = |name: &str, help: &str, metric: &dyn Cloned| {
            metric.register(registry, format!("vllm:{name}"), help);
        };
        add("num_requests_running", "Sequences that run", &self.levels.running);
        add("num_requests_waiting", "Sequences that wait", &self.levels.waiting);
        add(
            "kv_cache_usage_perc",
            "The share of the cache that is in use, from 0 to 1",
            &self.levels.cache_usage,
        );
        add(
            "prefix_cache_queries",
            "Tokens of prompts that were looked up in the cache",
            &self.prompt_tokens,
        );
        add("prefix_cache_hits", "Tokens of prompts that were found in the cache", &self.cached_tokens);
        add("prompt_tokens", "Tokens of prompts", &self.prompt_tokens);
        add("generation_tokens", "Tokens that were generated", &self.generated_tokens);
        add("num_preemptions", "Sequences that had to wait again for room in the cache", &self.preemptions);
        add("request_success", "Requests that were answered", &self.finished);
        add("time_to_first_token_seconds", "From a request to its first token", &self.time_to_first_token);
        add("inter_token_latency_seconds", "From one token to the next", &self.between_tokens);
        add("request_time_per_output_token_seconds", "A request's mean of that", &self.time_per_token);
        add("e2e_request_latency_seconds", "From a request to its last token", &self.end_to_end);
        add("request_queue_time_seconds", "From a request to its start", &self.queue);
        add("request_prefill_time_seconds", "From a request's start to its first token", &self.prefill);
        add("request_decode_time_seconds", "From a request's first token to its last", &self.decode);
    }

    /// A sequence began to run, after it waited so long.
    pub fn started(&self, waited: Duration) {
        self.queue.observe(waited.as_secs_f64());
    }

    /// A sequence has its first token, so long after it was sent.
    pub fn first_token(&self, progress: &Progress, after: Duration) {
        self.prompt_tokens.inc_by(progress.prompt_tokens as u64);
        self.cached_tokens.inc_by(progress.cached as u64);
        self.read_tokens.inc_by(progress.prompt_tokens.saturating_sub(progress.cached) as u64);
        let took = progress.prompt_time().as_secs_f64();
        self.prompt_seconds.inc_by(took);
        self.prefill.observe(took);
        self.time_to_first_token.observe(after.as_secs_f64());
        self.generated_tokens.inc();
    }

    /// A sequence has another token, so long after the one before.
    pub fn next_token(&self, after: Duration) {
        self.generated_seconds.inc_by(after.as_secs_f64());
        self.between_tokens.observe(after.as_secs_f64());
        self.generated_tokens.inc();
        self.decoded_tokens.inc();
    }

    pub fn preempted(&self) {
        self.preemptions.inc();
    }

    /// A sequence ended, so long after it was sent.
    pub fn finished(&self, progress: &Progress, end: &End, after: Duration) {
        let decode = progress.decode_time().as_secs_f64();
        self.decode.observe(decode);
        if progress.generated > 1 {
            self.time_per_token.observe(decode / (progress.generated - 1) as f64);
        }
        self.end_to_end.observe(after.as_secs_f64());
        self.longest.fetch_max((progress.prompt_tokens + progress.generated) as u64, Relaxed);
        self.finished.get_or_create(&Finished { finished_reason: end.name() }).inc();
    }

    /// The text that is scraped.
    fn text(&self, served: &Served) -> String {
        let (usage, levels) = (served.worker.usage(), &self.levels);
        let per = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        levels.running.set(usage.running as f64);
        levels.waiting.set(usage.waiting as f64);
        levels.cache_usage.set(per(usage.blocks_in_use as f64, usage.blocks as f64));
        let now = Scrape {
            read_tokens: self.read_tokens.get(),
            prompt_seconds: self.prompt_seconds.get(),
            decoded_tokens: self.decoded_tokens.get(),
            generated_seconds: self.generated_seconds.get(),
        };
        let mut last = self.last_scrape.lock().expect("no thread fails while it holds the lock");
        let since = |now: u64, last: u64| (now - last) as f64;
        levels
            .prompt_rate
            .set(per(since(now.read_tokens, last.read_tokens), now.prompt_seconds - last.prompt_seconds));
        levels.generated_rate.set(per(
            since(now.decoded_tokens, last.decoded_tokens),
            now.generated_seconds - last.generated_seconds,
        ));
        *last = now;
        let done = usage.done;
        for (counter, count) in [
            (&levels.steps, done.steps),
            (&levels.longest, self.longest.load(Relaxed)),
            (&levels.drafts, done.drafts),
            (&levels.guesses, done.guesses),
            (&levels.right_guesses, done.right_guesses),
        ] {
            counter.inner().store(count, Relaxed);
        }
        levels.running_per_step.set(per(self.generated_tokens.get() as f64, done.steps as f64));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a text can be written");
        // llama-server's one counter whose name has no `_total`.
        classic(&text).replace("n_tokens_max_total", "n_tokens_max")
    }
}

/// A text in OpenMetrics' format in the older one, which every reader knows: there a counter's description
/// names it as its value does, with `_total`.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help: Option<&str> = None;
    for line in text.lines().filter(|line| *line != "# EOF") {
        if line.starts_with("# HELP ") {
            help = Some(line);
            continue;
        }
        let counter = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter"));
        if let Some(help) = help.take() {
            let named = counter.map(|name| help.replacen(name, &format!("{name}_total"), 1));
            out.push_str(named.as_deref().unwrap_or(help));
            out.push('\n');
        }
        match counter {
            Some(name) => out.push_str(&format!("# TYPE {name}_total counter")),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// A metric that can be registered under several names.
trait Cloned {
    fn register(&self, registry: &mut Registry, name: String, help: &str);
}

impl<M: Metric + Clone> Cloned for M {
    fn register(&self, registry: &mut Registry, name: String, help: &str) {
        registry.register(name, help, self.clone());
    }
}

/// What was counted, in OpenMetrics' text form.
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (
            status = 200,
            description = "The metrics",
            body = String,
            content_type = "text/plain"
        ),
        (status = 501, description = "Switched off", body = Object),
    )
)]
pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response> {
    let served = app.model()?;
    if !app.options.has_metrics {
        return Err(ApiError::new(Kind::NotSupported, "this server was started with --no-metrics"));
    }
    let started = app.started.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let headers = [
        (CONTENT_TYPE.as_str(), "text/plain; version=0.0.4; charset=utf-8".to_owned()),
        ("process-start-time-unix", started.to_string()),
    ];
    Ok((headers, served.metrics.text(served)).into_response())
}
