//! What all requests share: the loaded model, the limits, and what is counted.

use super::{
    Loaded, Options,
    adapter_scales::AdapterScales,
    error::{ApiError, Kind, Result},
    metrics::Metrics,
    progress::Progress,
    remote_images::RemoteImages,
    slot_prompts::SlotPrompts,
};
use crate::{
    chat::Template,
    engine::Worker,
    model::Model,
    sampling::{Penalties, Sampling},
    tokenizer::Tokenizer,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::SystemTime,
};
use tokio::sync::Semaphore;

/// The model, once it is loaded.
pub struct Served {
    /// The name that answers bear.
    pub name: String,
    pub model: Arc<Model>,
    pub tokenizer: Arc<Tokenizer>,
    pub template: Template,
    pub worker: Worker,
    /// The ids that end an answer in a conversation.
    pub turn_ends: Vec<u32>,
    /// The most positions of a sequence.
    pub context: usize,
    /// How many sequences run at once.
    pub parallel: usize,
    /// How tokens are picked where a request does not say it.
    pub sampling: Sampling,
    /// The penalty of repetitions where the most probable token is picked: none that is only recommended.
    pub greedy_penalty: f32,
    /// What chance starts from where a request does not say it. None: random.
    pub seed: Option<u64>,
    /// The size of the weights on the device in bytes.
    pub weights_bytes: u64,
    pub metrics: Metrics,
    /// How much of each adapter applies where a request does not say it.
    pub adapters: AdapterScales,
    /// The prompts that ran last.
    pub slot_prompts: SlotPrompts,
    /// The sequences that run, by their own numbers.
    running: Mutex<HashMap<u64, Progress>>,
    line_ends: OnceLock<BTreeSet<u32>>,
}

impl Served {
    pub(super) fn new(options: &Options, loaded: Loaded) -> crate::error::Result<Self> {
        let Loaded { model, tokenizer, engine, sleep } = loaded;
        let template = match &options.chat_template {
            Some(text) => Template::given(text, model.special_tokens.clone())?,
            None => Template::of(&model)?,
        };
        let base = model.defaults.sampling();
        let sampling = Sampling {
            temperature: options.temperature.unwrap_or(base.temperature),
            top_k: options.top_k.unwrap_or(base.top_k),
            top_p: options.top_p.unwrap_or(base.top_p),
            min_p: options.min_p.unwrap_or(base.min_p),
            penalties: Penalties {
                repetition: options.repeat_penalty.unwrap_or(base.penalties.repetition),
                presence: options.presence_penalty.unwrap_or(base.penalties.presence),
                frequency: options.frequency_penalty.unwrap_or(base.penalties.frequency),
                ..base.penalties
            },
            ..base
        };
        sampling.check()?;
        let name = options.alias.clone().unwrap_or_else(|| model.name.clone());
        Ok(Self {
            metrics: Metrics::new(&name, engine.usage().blocks),
            weights_bytes: engine.weights_bytes(),
            running: Mutex::default(),
            adapters: AdapterScales::new(model.adapters.iter().map(|adapter| adapter.scale).collect()),
            slot_prompts: SlotPrompts::new(engine.plans().sizes.sequences as usize),
            name,
            turn_ends: template.ends(&model, &tokenizer)?,
            tokenizer: Arc::new(tokenizer),
            template,
            context: engine.context() as usize,
            parallel: engine.plans().sizes.sequences as usize,
            sampling,
            greedy_penalty: options.repeat_penalty.unwrap_or(1.0),
            seed: options.seed,
            worker: Worker::start(engine, sleep)?,
            model,
            line_ends: OnceLock::new(),
        })
    }

    /// The sequences that run.
    pub fn running(&self) -> Vec<Progress> {
        self.running.lock().expect("no thread fails while it holds the lock").values().copied().collect()
    }

    /// Says how far a sequence is; None: that it does not run.
    pub fn runs(&self, number: u64, progress: Option<Progress>) {
        let mut running = self.running.lock().expect("no thread fails while it holds the lock");
        match progress {
            Some(progress) => drop(running.insert(number, progress)),
            None => drop(running.remove(&number)),
        }
    }

    /// The tokens that interrupt a repetition for DRY where a request names none.
    pub fn line_ends(&self) -> &BTreeSet<u32> {
        self.line_ends.get_or_init(|| self.tokenizer.with_any(&crate::sampling::Dry::BREAKERS))
    }
}

/// The state of the server.
pub struct App {
    pub options: Options,
    pub started: SystemTime,
    /// How many threads work on requests before they are sent to the engine. Each keeps what tokenizers have
    /// tokenized, up to 17 MB where words are whole texts.
    pub threads: Semaphore,
    /// Fetches the images that requests name by an address. None: none are fetched.
    pub remote_images: Option<Arc<RemoteImages>>,
    served: OnceLock<Served>,
    /// The number of sequences that run or wait.
    admitted: AtomicUsize,
    /// The number of answers that their clients have not read to the end.
    answers: AtomicUsize,
    /// Whether the server is about to stop: load balancers should look away.
    draining: AtomicBool,
    /// Whether new requests are refused.
    closed: AtomicBool,
    /// Told when what still runs must be cut.
    cut: tokio::sync::watch::Sender<bool>,
}

impl App {
    /// # Errors
    /// If the trusted certificates, for images from elsewhere, cannot be read.
    pub fn new(options: Options) -> crate::error::Result<Self> {
        let remote_images = match options.image_hosts.is_empty() {
            true => None,
            false => Some(Arc::new(RemoteImages::new(&options.image_hosts, options.max_body)?)),
        };
        Ok(Self {
            remote_images,
            options,
            started: SystemTime::now(),
            threads: Semaphore::new(16),
            served: OnceLock::new(),
            admitted: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            cut: tokio::sync::watch::Sender::new(false),
        })
    }

    /// Makes the model available to requests.
    pub(super) fn serve(&self, served: Served) {
        // It is loaded once.
        let _ = self.served.set(served);
    }

    /// The model, for a new request.
    ///
    /// # Errors
    /// Unavailable while it is being loaded, and once the server stops.
    pub fn served(&self) -> Result<&Served> {
        match self.closed.load(SeqCst) {
            false => self.model(),
            true => {
                let what = "the server is about to stop: ask another, or later";
                Err(ApiError::new(Kind::Unavailable, what))
            }
        }
    }

    /// The model, for a request that only asks what is.
    ///
    /// # Errors
    /// Unavailable while it is being loaded.
    pub fn model(&self) -> Result<&Served> {
        let what = "the model is being loaded: ask again in a moment";
        self.served.get().ok_or_else(|| ApiError::new(Kind::Unavailable, what))
    }

    /// The model, for a request that was taken in.
    ///
    /// # Panics
    /// If the model is not loaded.
    pub fn loaded(&self) -> &Served {
        self.served.get().expect("no request is taken in before the model is loaded")
    }

    /// Whether it takes requests and will for some time.
    pub fn is_healthy(&self) -> bool {
        self.served.get().is_some() && !self.draining.load(SeqCst)
    }

    /// Says that the server is about to stop. Requests are still taken.
    pub(super) fn drain(&self) {
        self.draining.store(true, SeqCst);
    }

    /// Refuses new requests from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    /// Ends what still runs.
    pub(super) fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Becomes true when what still runs must end.
    pub fn when_cut(&self) -> tokio::sync::watch::Receiver<bool> {
        self.cut.subscribe()
    }

    /// Whether no sequence runs or waits, and every answer is read.
    pub fn is_idle(&self) -> bool {
        self.admitted.load(SeqCst) == 0 && self.answers.load(SeqCst) == 0
    }

    /// Counts an answer until the result is dropped.
    pub fn answering(self: &Arc<Self>) -> Answering {
        self.answers.fetch_add(1, SeqCst);
        Answering { app: self.clone() }
    }

    /// Takes in `count` sequences, each until its part of the result is dropped. If no others run, they are
    /// taken in however many they are.
    ///
    /// # Errors
    /// RateLimit if too many wait already.
    pub fn admit(self: &Arc<Self>, served: &Served, count: usize) -> Result<Vec<Admitted>> {
        let most = served.parallel + self.options.max_queue;
        let fits = |now: usize| (now == 0 || now + count <= most).then_some(now + count);
        match self.admitted.fetch_update(SeqCst, SeqCst, fits) {
            Ok(_) => Ok((0..count).map(|_| Admitted { app: self.clone() }).collect()),
            Err(waiting) => Err(ApiError::new(
                Kind::RateLimit,
                format!("{waiting} sequences run or wait already: ask again in a moment"),
            )),
        }
    }
}

/// An answer that its client reads.
pub struct Answering {
    app: Arc<App>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.app.answers.fetch_sub(1, SeqCst);
    }
}

/// A sequence that was taken in.
pub struct Admitted {
    app: Arc<App>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.app.admitted.fetch_sub(1, SeqCst);
    }
}
