//! Runs the sequences of a request and gives their pieces of text as they come.

use super::{
    app::{Admitted, Answering, App, Served},
    error::{ApiError, Kind, Result},
    progress::Progress,
};
use crate::{
    engine::{FinishReason, Goal, Happened, OwnedPrompt, Placed, Ticket},
    error::Error,
    language_model::Detokenizer,
    sampling::{Logprobs, Sampling},
    tokenizer::{TextStream, Tokenizer},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// The ids of a prompt, and the images that take the place of some.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    pub ids: Vec<u32>,
    pub images: Vec<Placed>,
}

impl Tokens {
    /// What the engine gets.
    pub fn prompt(&self, adapters: &[f32]) -> OwnedPrompt {
        let adapters = Some(adapters.to_vec());
        OwnedPrompt { tokens: self.ids.clone(), images: self.images.clone(), adapters }
    }

    /// The same without the first image and what is behind it.
    fn before_images(&self, adapters: &[f32]) -> OwnedPrompt {
        let text = &self.ids[..self.images.first().map_or(self.ids.len(), |image| image.at)];
        OwnedPrompt { adapters: Some(adapters.to_vec()), ..text.to_vec().into() }
    }
}

/// Where, how long and with which adapters the texts of a request run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The slot whose prompt this is, for who saves it. None: the one in which it runs.
    pub slot: Option<u32>,
    /// How long tokens come. None: however long they take.
    pub time: Option<Duration>,
    /// How many tokens stay when a server that shifts contexts leaves out others.
    pub keep: Option<usize>,
    /// How much of each adapter applies.
    pub adapters: Arc<[f32]>,
}

/// What to generate from each of a request's prompts.
pub struct Job {
    pub sampling: Sampling,
    /// None: to the end of the context.
    pub max_tokens: Option<usize>,
    /// The texts before which the text ends.
    pub stops: Vec<String>,
    /// The ids that end the text.
    pub ends: Vec<u32>,
    /// How many alternatives to each token are wanted, with their log-probabilities.
    pub logprobs: Option<usize>,
    /// The number of texts for each prompt. The first has the seed of `sampling`, each further one the next.
    pub count: usize,
    /// Whether blanks at the beginning of a text are dropped.
    pub trims: bool,
    pub run: Run,
}

/// A generated token.
#[derive(Clone, Debug)]
pub struct Token {
    pub id: u32,
    /// How many of its first bytes are not in the text, which begins after them.
    pub dropped: usize,
    pub logprobs: Option<Logprobs>,
}

/// Why a text ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// The model ended it.
    Eos,
    /// A stop string came.
    Stop(String),
    /// The requested number of tokens is reached, or the context is full.
    Length,
}

impl End {
    /// OpenAI's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Eos | Self::Stop(_) => "stop",
            Self::Length => "length",
        }
    }
}

/// Something that comes of a text.
#[derive(Clone, Debug)]
pub enum Piece {
    /// So many tokens of the prompt are read.
    Read { index: usize },
    /// More text, and the tokens that it is made of.
    Text { index: usize, text: String, tokens: Vec<Token> },
    /// The text ended. The rest of it is in here.
    End { index: usize, text: String, tokens: Vec<Token>, end: End },
}

/// Whether a prompt leaves room for an answer.
fn check_length(prompt: &Tokens, context: usize) -> Result<()> {
    match prompt.ids.len() {
        0 => {
            let what = "the prompt is empty, and no token starts it: give it a text";
            Err(ApiError { param: Some("prompt".into()), ..ApiError::new(Kind::InvalidRequest, what) })
        }
        tokens if tokens >= context => Err(ApiError::new(
            Kind::ContextExceeded { tokens, context },
            format!(
                // Agents look for these words.
                "the prompt of {tokens} tokens exceeds the available context size ({context} tokens, answer \
                 included): shorten it, or start the server with a larger --ctx"
            ),
        )),
        _ => Ok(()),
    }
}

/// The tokens of a prompt with their log-probabilities, and so many alternatives to each. The first token has
/// none.
pub async fn score(
    app: &App,
    served: &Served,
    prompt: &Tokens,
    adapters: &[f32],
    alternatives: usize,
) -> Result<Vec<Token>> {
    let (to, mut told) = mpsc::unbounded_channel();
    let (ids, mut next) = (prompt.ids.clone(), 1);
    let vocab_size = served.model.architecture.vocab_size as usize;
    let sink = Box::new(move |outcome: Result<Happened, Arc<Error>>| {
        let scored = outcome.map(|happened| {
            let Happened::Logits(logits) = happened else { return Vec::new() };
            let rows = logits.chunks(vocab_size).zip(ids.get(next..).unwrap_or_default());
            let scored: Vec<_> = rows.map(|(row, id)| Logprobs::new(row, *id, alternatives)).collect();
            next += logits.len() / vocab_size;
            scored
        });
        drop(to.send(scored));
    });
    let goal = Goal::Predict { from: 0 };
    let _ticket = served.worker.send(prompt.prompt(adapters), goal, sink);
    let mut scored = vec![None];
    while scored.len() < prompt.ids.len() {
        let more = unless_cut(app, told.recv()).await?;
        scored.extend(more.map_err(|error| ApiError::from(&*error))?.into_iter().map(Some));
    }
    Ok(prompt.ids.iter().zip(scored).map(|(id, logprobs)| Token { id: *id, dropped: 0, logprobs }).collect())
}

/// One of the texts of a request.
struct Text {
    /// A number that no other text has.
    number: u64,
    /// Whether its sequence has ended, though not all of it may be read.
    is_over: Arc<AtomicBool>,
    /// Dropped when the text ends, which cancels the sequence if it runs.
    ticket: Option<Ticket>,
    detokenizer: Detokenizer<Arc<Tokenizer>>,
    /// The tokens whose text was not given yet.
    pending: Vec<Token>,
    logprobs: Option<Logprobs>,
    /// Whether blanks are dropped until something else comes.
    trims: bool,
    progress: Progress,
    has_new_line: bool,
    run: Run,
}

impl Text {
    /// Whether it has taken as long as it may. It ends behind its first line at the earliest.
    fn is_out_of_time(&self) -> bool {
        self.has_new_line && self.run.time.is_some_and(|time| self.progress.decode_time() > time)
    }

    /// Drops blanks at the beginning of the text, and from the tokens that they are part of.
    fn trimmed(&mut self, piece: String, tokenizer: &Tokenizer) -> String {
        if !self.trims {
            return piece;
        }
        let rest = piece.trim_start();
        let mut dropped = piece.len() - rest.len();
        for token in &mut self.pending {
            let more = dropped.min(tokenizer.token_bytes(token.id).len() - token.dropped);
            token.dropped += more;
            dropped -= more;
        }
        self.trims = rest.is_empty();
        rest.to_owned()
    }
}

/// Waits for what the engine tells, unless what runs is cut first.
///
/// # Errors
/// Unavailable if it is cut, Server if the engine's thread has ended.
pub async fn unless_cut<T>(app: &App, told: impl Future<Output = Option<T>>) -> Result<T> {
    let mut cut = app.when_cut();
    let is_cut = async { drop(cut.wait_for(|cut| *cut).await) };
    tokio::select! {
        told = told => told.ok_or_else(|| {
            ApiError::new(Kind::Server, "the engine's thread has ended: start the server again")
        }),
        () = is_cut => {
            let what = "the server stops before this answer is complete: ask again";
            Err(ApiError::new(Kind::Unavailable, what))
        }
    }
}

/// The most texts of a request: its prompts times its `n`.
const MAX_TEXTS: usize = 2048;

static NUMBER: AtomicU64 = AtomicU64::new(0);

type Told = (usize, Instant, Result<Happened, Arc<Error>>);

/// The texts of a request while they are generated. Dropping it cancels them.
pub struct Generation {
    app: Arc<App>,
    told: mpsc::UnboundedReceiver<Told>,
    texts: Vec<Text>,
    /// The number of texts for each prompt.
    per_prompt: usize,
    pieces: VecDeque<Piece>,
    _answering: Answering,
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.texts.iter().for_each(|text| self.app.loaded().runs(text.number, None));
    }
}

impl Generation {
    /// Takes in the texts of a job.
    ///
    /// # Errors
    /// ContextExceeded if a prompt leaves no room for a token, InvalidRequest if there are too many texts,
    /// RateLimit if too many wait already.
    pub fn admit(app: &Arc<App>, served: &Served, prompts: &[Tokens], job: &Job) -> Result<Vec<Admitted>> {
        prompts.iter().try_for_each(|prompt| check_length(prompt, served.context))?;
        let count = prompts.len() * job.count;
        if count > MAX_TEXTS {
            let what = format!("the request is for {count} texts, but at most {MAX_TEXTS} are given at once");
            return Err(ApiError::new(Kind::InvalidRequest, what));
        }
        app.admit(served, count)
    }

    /// Takes in the texts of a job and sends it to the engine. The texts of the first prompt come first.
    ///
    /// # Errors
    /// Those of [`Generation::admit`].
    pub fn start(app: &Arc<App>, served: &Served, prompts: Vec<Tokens>, job: &Job) -> Result<Self> {
        let admitted = Self::admit(app, served, &prompts, job)?;
        Ok(Self::start_admitted(app, served, prompts, job, admitted))
    }

    /// Sends a job to the engine, whose texts are taken in already.
    pub fn start_admitted(
        app: &Arc<App>,
        served: &Served,
        prompts: Vec<Tokens>,
        job: &Job,
        mut admitted: Vec<Admitted>,
    ) -> Self {
        let (to, told) = mpsc::unbounded_channel();
        let (mut texts, mut pieces) = (Vec::new(), VecDeque::new());
        let each = prompts.iter().flat_map(|prompt| {
            let before_images = Arc::new(prompt.before_images(&job.run.adapters));
            (0..job.count).map(move |number| (prompt, before_images.clone(), number))
        });
        for (prompt, before_images, number) in each {
            let goal = Goal::Generate {
                sampling: Sampling {
                    seed: job.sampling.seed.wrapping_add(number as u64),
                    ..job.sampling.clone()
                },
                max_tokens: job.max_tokens.unwrap_or(served.context - prompt.ids.len()),
                ends: job.ends.clone(),
                logprobs: job.logprobs,
                keep: job.run.keep.filter(|_| app.options.shifts_context),
            };
            let (index, to) = (texts.len(), to.clone());
            let number = NUMBER.fetch_add(1, Relaxed);
            let is_over = Arc::new(AtomicBool::new(false));
            // It makes room for others when it ends, not when its client has read all of it.
            let (of_app, over, mut admitted) = (app.clone(), is_over.clone(), admitted.pop());
            let asked = job.run.slot;
            let sink = Box::new(move |outcome: Result<Happened, Arc<Error>>| {
                let is_last = matches!(outcome, Err(_) | Ok(Happened::Finished(_)));
                if let Ok(Happened::Started { slot, .. }) = outcome {
                    of_app.loaded().slot_prompts.set(asked.unwrap_or(slot), before_images.clone());
                }
                // Sending fails once the request is dropped.
                let _ = to.send((index, Instant::now(), outcome));
                if is_last {
                    over.store(true, Relaxed);
                    of_app.loaded().runs(number, None);
                    drop(admitted.take());
                }
            });
            let ticket = match job.max_tokens {
                Some(0) => {
                    pieces.push_back(Piece::End {
                        index,
                        text: String::new(),
                        tokens: Vec::new(),
                        end: End::Length,
                    });
                    None
                }
                _ => Some(served.worker.send(prompt.prompt(&job.run.adapters), goal, sink)),
            };
            let stream = TextStream::new(served.tokenizer.clone(), &prompt.ids);
            texts.push(Text {
                number,
                is_over,
                ticket,
                detokenizer: Detokenizer::new(stream, &job.stops, job.ends.clone()),
                pending: Vec::new(),
                logprobs: None,
                trims: job.trims,
                progress: Progress::new(prompt.ids.len(), job.max_tokens),
                has_new_line: false,
                run: job.run.clone(),
            });
        }
        Self { app: app.clone(), told, texts, per_prompt: job.count, pieces, _answering: app.answering() }
    }

    /// How one of the texts came about.
    pub fn progress(&self, index: usize) -> &Progress {
        &self.texts[index].progress
    }

    /// The tokens of the prompts, those of them found in the cache, and the tokens of all texts together.
    pub fn usage(&self) -> Usage {
        // A prompt of several texts counts once.
        let prompts = || self.texts.iter().step_by(self.per_prompt).map(|text| &text.progress);
        Usage {
            prompt: prompts().map(|progress| progress.prompt_tokens).sum(),
            cached: prompts().map(|progress| progress.cached).sum(),
            generated: self.texts.iter().map(|text| text.progress.generated).sum(),
        }
    }

    /// The next piece; None once all texts have ended.
    ///
    /// # Errors
    /// If the engine fails or the server stops. Nothing comes after that.
    pub async fn next(&mut self) -> Result<Option<Piece>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(Some(piece));
            }
            if self.texts.iter().all(|text| text.ticket.is_none()) {
                return Ok(None);
            }
            let (index, at, outcome) = match unless_cut(&self.app, self.told.recv()).await {
                Ok(told) => told,
                Err(error) => {
                    self.texts.iter_mut().for_each(|text| text.ticket = None);
                    return Err(error);
                }
            };
            match outcome {
                Ok(happened) => self.take(index, at, happened),
                Err(error) => {
                    self.texts.iter_mut().for_each(|text| text.ticket = None);
                    return Err(ApiError::from(&*error));
                }
            }
        }
    }

    fn take(&mut self, index: usize, at: Instant, happened: Happened) {
        let app = self.app.clone();
        let served = app.loaded();
        let metrics = &served.metrics;
        let text = &mut self.texts[index];
        if text.ticket.is_none() {
            return;
        }
        let progress = &mut text.progress;
        match happened {
            Happened::Started { slot, cached } => {
                progress.slot = text.run.slot.unwrap_or(slot);
                if progress.started.is_none() {
                    progress.started = Some(at);
                    (progress.read, progress.cached) = (cached, cached);
                    metrics.started(at.duration_since(progress.sent));
                    self.pieces.push_back(Piece::Read { index });
                }
            }
            // Read again, because it had to make room or is shorter now.
            Happened::Read { .. } if progress.first.is_some() => (),
            Happened::Read { tokens, cached } => {
                (progress.read, progress.cached) = (tokens, cached);
                self.pieces.push_back(Piece::Read { index });
            }
            Happened::Logprobs(logprobs) => text.logprobs = Some(logprobs),
            Happened::Token(id) => {
                match progress.last {
                    None => {
                        progress.first = Some(at);
                        metrics.first_token(progress, at.duration_since(progress.sent));
                    }
                    Some(last) => metrics.next_token(at.duration_since(last)),
                }
                progress.last = Some(at);
                progress.generated += 1;
                let shown = text.detokenizer.push(id, false);
                text.pending.push(Token { id, dropped: 0, logprobs: text.logprobs.take() });
                let shown = text.trimmed(shown, &served.tokenizer);
                text.has_new_line |= shown.contains('\n');
                if text.detokenizer.has_ended() {
                    self.end(index, shown, at);
                } else if text.is_out_of_time() {
                    let rest = shown + &text.detokenizer.finish();
                    self.end(index, rest, at);
                } else if !shown.is_empty() {
                    let tokens = std::mem::take(&mut text.pending);
                    self.pieces.push_back(Piece::Text { index, text: shown, tokens });
                }
            }
            Happened::Finished(reason) => {
                debug_assert_eq!(reason, FinishReason::Length, "a token that ends the text came before");
                let rest = text.detokenizer.finish();
                let rest = text.trimmed(rest, &served.tokenizer);
                self.end(index, rest, at);
            }
            Happened::Preempted => {
                metrics.preempted();
                served.runs(text.number, None);
                return;
            }
            Happened::Scores(_) | Happened::Logits(_) | Happened::Hidden(_) | Happened::NotNumbers => (),
        }
        let text = &self.texts[index];
        if !text.is_over.load(Relaxed) {
            served.runs(text.number, text.ticket.is_some().then_some(text.progress));
        }
    }

    fn end(&mut self, index: usize, rest: String, at: Instant) {
        let text = &mut self.texts[index];
        text.ticket = None;
        let end = match text.detokenizer.stopped_by() {
            Some(stop) => End::Stop(stop.to_owned()),
            None if text.detokenizer.has_ended() => End::Eos,
            None => End::Length,
        };
        let mut tokens = std::mem::take(&mut text.pending);
        match end {
            // The token that ends a text is not part of it.
            End::Eos => drop(tokens.pop()),
            End::Stop(_) if rest.is_empty() => tokens.clear(),
            _ => (),
        }
        self.app.loaded().metrics.finished(&text.progress, &end, at.duration_since(text.progress.sent));
        self.pieces.push_back(Piece::End { index, text: rest, tokens, end });
    }

    /// Waits for all texts to end.
    ///
    /// # Errors
    /// Those of [`Generation::next`].
    pub async fn complete(&mut self) -> Result<Vec<Complete>> {
        let mut all =
            vec![Complete { text: String::new(), tokens: Vec::new(), end: End::Length }; self.texts.len()];
        while let Some(piece) = self.next().await? {
            match piece {
                Piece::Read { .. } => (),
                Piece::Text { index, text, tokens } => all[index].add(&text, tokens),
                Piece::End { index, text, tokens, end } => {
                    all[index].add(&text, tokens);
                    all[index].end = end;
                }
            }
        }
        Ok(all)
    }
}

/// What a request took, in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub prompt: usize,
    pub cached: usize,
    pub generated: usize,
}

/// A whole text.
#[derive(Clone, Debug)]
pub struct Complete {
    pub text: String,
    pub tokens: Vec<Token>,
    pub end: End,
}

impl Complete {
    fn add(&mut self, text: &str, tokens: Vec<Token>) {
        self.text.push_str(text);
        self.tokens.extend(tokens);
    }
}
