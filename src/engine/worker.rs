//! An engine on a thread of its own, for servers. Any thread can send requests, and each request receives its
//! own events. While nobody asks for anything, the engine can be put away.

use super::{Done, Engine, Goal, Happened, OwnedPrompt, SequenceId, Usage};
use crate::error::{Error, Result};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

/// An event of a request, or the error that ends it.
pub type Outcome = Result<Happened, Arc<Error>>;

/// Takes the outcomes of a request, on the engine's thread: it must not block.
pub type Sink = Box<dyn FnMut(Outcome) + Send>;

/// The number of a request. It is assigned before the engine adds the sequence.
type Number = u64;

/// Something to do with the engine, or to be told that it cannot be loaded.
type Work = Box<dyn FnOnce(Result<&mut Engine>) + Send>;

enum Command {
    Run { ticket: Number, prompt: OwnedPrompt, goal: Box<Goal>, to: Sink },
    Cancel(Number),
    With(Work),
}

/// When to put the engine away, which frees its memory, and how to load it again for the next request.
pub struct Sleep {
    /// How long nothing runs before.
    pub after: Duration,
    pub load: Box<dyn FnMut() -> Result<Engine> + Send>,
}

/// A handle to the engine's thread. The thread ends when the worker and all its requests are dropped.
pub struct Worker {
    commands: Sender<Command>,
    next: AtomicU64,
    usage: Arc<Mutex<Usage>>,
    is_asleep: Arc<AtomicBool>,
}

impl Worker {
    /// Moves an engine to a thread of its own. Without `sleep` it is never put away.
    ///
    /// # Errors
    /// Of the kind Run if the thread cannot be started.
    pub fn start(engine: Engine, sleep: Option<Sleep>) -> Result<Self> {
        let (commands, incoming) = channel();
        let usage = Arc::new(Mutex::new(engine.usage()));
        let is_asleep = Arc::new(AtomicBool::new(false));
        let state = Loop {
            engine: Some(engine),
            sleep,
            is_asleep: is_asleep.clone(),
            running: HashMap::new(),
            ids: HashMap::new(),
            usage: usage.clone(),
            done_before: Done::default(),
        };
        std::thread::Builder::new()
            .name("wgpt engine".to_owned())
            .spawn(move || state.run(&incoming))
            .map_err(|e| Error::run(format!("the engine's thread could not be started: {e}")).because(e))?;
        Ok(Self { commands, next: AtomicU64::new(0), usage, is_asleep })
    }

    /// Adds a sequence. If the request is invalid, its first and only outcome is an error.
    pub fn run(&self, prompt: impl Into<OwnedPrompt>, goal: Goal) -> Running {
        let (to, outcomes) = channel();
        // Sending fails if the request was dropped in the meantime.
        let ticket = self.send(prompt, goal, Box::new(move |outcome| drop(to.send(outcome))));
        Running { _ticket: ticket, outcomes, ended: false }
    }

    /// The same as [`Worker::run`], for programs that must not block: `to` is called with each outcome. If
    /// the engine's thread has ended, it is dropped without a last one.
    pub fn send(&self, prompt: impl Into<OwnedPrompt>, goal: Goal, to: Sink) -> Ticket {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let commands = self.commands.clone();
        let (prompt, goal) = (prompt.into(), Box::new(goal));
        let _ = commands.send(Command::Run { ticket: number, prompt, goal, to });
        Ticket { commands, number }
    }

    /// How busy the engine was after its last step.
    pub fn usage(&self) -> Usage {
        *self.usage.lock().expect("no thread fails while it holds the lock")
    }

    /// Whether the engine is put away.
    pub fn is_asleep(&self) -> bool {
        self.is_asleep.load(Ordering::Relaxed)
    }

    /// Does something with the engine between two steps, and waits for it.
    ///
    /// # Errors
    /// Those of `work`; those of loading the engine if it is put away; of the kind Run if the thread has
    /// ended.
    pub fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (to, done) = channel();
        let work = move |engine: Result<&mut Engine>| drop(to.send(engine.and_then(work)));
        let _ = self.commands.send(Command::With(Box::new(work)));
        done.recv().unwrap_or_else(|_| Err(Error::run("the engine's thread has ended")))
    }
}

/// Stands for a request: dropping it cancels the request.
pub struct Ticket {
    commands: Sender<Command>,
    number: Number,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Cancel(self.number));
    }
}

/// A running request: an iterator over its outcomes, which blocks until the next one. Dropping it cancels the
/// request.
pub struct Running {
    _ticket: Ticket,
    outcomes: Receiver<Outcome>,
    ended: bool,
}

impl Iterator for Running {
    type Item = Outcome;

    fn next(&mut self) -> Option<Outcome> {
        if self.ended {
            return None;
        }
        let gone = || Err(Arc::new(Error::run("the engine's thread has ended")));
        let outcome = self.outcomes.recv().unwrap_or_else(|_| gone());
        self.ended = matches!(outcome, Err(_) | Ok(Happened::Finished(_)));
        Some(outcome)
    }
}

/// The thread's state. It takes commands between steps.
struct Loop {
    /// None while it is put away.
    engine: Option<Engine>,
    sleep: Option<Sleep>,
    is_asleep: Arc<AtomicBool>,
    running: HashMap<SequenceId, (Number, Sink)>,
    ids: HashMap<Number, SequenceId>,
    usage: Arc<Mutex<Usage>>,
    /// What was done before the engine was last loaded.
    done_before: Done,
}

impl Loop {
    /// Runs until nobody can send commands any more.
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            if self.engine.as_ref().is_none_or(Engine::is_idle) {
                match self.wait(commands) {
                    Ok(command) => self.take(command),
                    Err(RecvTimeoutError::Timeout) => self.put_away(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            commands.try_iter().for_each(|command| self.take(command));
            let Some(engine) = &mut self.engine else { continue };
            let outcome = engine.step();
            // Before the outcomes: who has them may ask at once.
            let usage = engine.usage();
            *self.usage.lock().expect("no thread fails while it holds the lock") =
                Usage { done: self.done_before + usage.done, ..usage };
            match outcome {
                Ok(events) => events.into_iter().for_each(|event| self.tell(event.sequence, event.happened)),
                Err(error) => {
                    let error = Arc::new(error);
                    self.ids.clear();
                    for (_, (_, mut to)) in self.running.drain() {
                        to(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Waits for a command, for as long as the engine may be idle.
    fn wait(&self, commands: &Receiver<Command>) -> Result<Command, RecvTimeoutError> {
        match &self.sleep {
            Some(sleep) if self.engine.is_some() => commands.recv_timeout(sleep.after),
            _ => commands.recv().map_err(RecvTimeoutError::from),
        }
    }

    fn put_away(&mut self) {
        if let Some(engine) = self.engine.take() {
            self.done_before = self.done_before + engine.usage().done;
        }
        self.is_asleep.store(true, Ordering::Relaxed);
        tracing::info!("asleep: the model is no longer in memory");
    }

    /// The engine, loaded again if it is put away.
    fn awake(&mut self) -> Result<&mut Engine> {
        match (&mut self.engine, &mut self.sleep) {
            (engine @ None, Some(sleep)) => {
                *engine = Some((sleep.load)()?);
                self.is_asleep.store(false, Ordering::Relaxed);
            }
            (None, None) => unreachable!("only an engine that can be loaded again is put away"),
            (Some(_), _) => (),
        }
        Ok(self.engine.as_mut().expect("loaded"))
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Run { ticket, prompt, goal, mut to } => {
                match self.awake().and_then(|engine| engine.add(&prompt, *goal)) {
                    Ok(id) => {
                        self.ids.insert(ticket, id);
                        self.running.insert(id, (ticket, to));
                    }
                    Err(error) => to(Err(Arc::new(error))),
                }
            }
            Command::Cancel(ticket) => {
                if let (Some(id), Some(engine)) = (self.ids.remove(&ticket), &mut self.engine) {
                    self.running.remove(&id);
                    engine.cancel(id);
                }
            }
            Command::With(work) => work(self.awake()),
        }
    }

    fn tell(&mut self, id: SequenceId, happened: Happened) {
        let Some((ticket, to)) = self.running.get_mut(&id) else { return };
        let is_last = matches!(happened, Happened::Finished(_) | Happened::NotNumbers);
        let outcome = match (happened, &self.engine) {
            (Happened::NotNumbers, Some(engine)) => Err(Arc::new(engine.not_numbers())),
            (happened, _) => Ok(happened),
        };
        to(outcome);
        if is_last {
            self.ids.remove(ticket);
            self.running.remove(&id);
        }
    }
}
