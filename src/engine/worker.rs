//! An engine on a thread of its own, for servers. Any thread can send requests, and each request receives its
//! own events.

use super::{Engine, Goal, Happened, Placed, Prompt, SequenceId, Usage};
use crate::{
    error::{Error, Result},
    prompt::Features,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

/// An event of a request, or the error that ends it.
pub type Outcome = Result<Happened, Arc<Error>>;

/// Takes the outcomes of a request, on the engine's thread: it must not block.
pub type Sink = Box<dyn FnMut(Outcome) + Send>;

/// The number of a request. It is assigned before the engine adds the sequence.
type Number = u64;

enum Command {
    Run { ticket: Number, tokens: Vec<u32>, images: Vec<Placed>, goal: Box<Goal>, to: Sink },
    Cancel(Number),
    EncodeImage { pixels: Vec<f32>, to: Sender<Result<Features>> },
}

/// A handle to the engine's thread. The thread ends when the worker and all its requests are dropped.
pub struct Worker {
    commands: Sender<Command>,
    next: AtomicU64,
    usage: Arc<Mutex<Usage>>,
}

impl Worker {
    /// Moves an engine to a thread of its own.
    ///
    /// # Errors
    /// Of the kind Run if the thread cannot be started.
    pub fn start(engine: Engine) -> Result<Self> {
        let (commands, incoming) = channel();
        let usage = Arc::new(Mutex::new(engine.usage()));
        let (running, ids) = (HashMap::new(), HashMap::new());
        let state = Loop { engine, running, ids, usage: usage.clone() };
        std::thread::Builder::new()
            .name("wgpt engine".to_owned())
            .spawn(move || state.run(&incoming))
            .map_err(|e| Error::run(format!("the engine's thread could not be started: {e}")).because(e))?;
        Ok(Self { commands, next: AtomicU64::new(0), usage })
    }

    /// Adds a sequence. If the request is invalid, its first and only outcome is an error.
    pub fn run(&self, tokens: Vec<u32>, images: Vec<Placed>, goal: Goal) -> Running {
        let (to, outcomes) = channel();
        // Sending fails if the request was dropped in the meantime.
        let ticket = self.send(tokens, images, goal, Box::new(move |outcome| drop(to.send(outcome))));
        Running { _ticket: ticket, outcomes, ended: false }
    }

    /// The same as [`Worker::run`], for programs that must not block: `to` is called with each outcome. If
    /// the engine's thread has ended, it is dropped without a last one.
    pub fn send(&self, tokens: Vec<u32>, images: Vec<Placed>, goal: Goal, to: Sink) -> Ticket {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let commands = self.commands.clone();
        let goal = Box::new(goal);
        let _ = commands.send(Command::Run { ticket: number, tokens, images, goal, to });
        Ticket { commands, number }
    }

    /// How busy the engine was after its last step.
    pub fn usage(&self) -> Usage {
        *self.usage.lock().expect("no thread fails while it holds the lock")
    }

    /// The same as [`Engine::encode_image`].
    ///
    /// # Errors
    /// Those of [`Engine::encode_image`], and of the kind Run if the thread has ended.
    pub fn encode_image(&self, pixels: Vec<f32>) -> Result<Features> {
        let (to, encoded) = channel();
        let _ = self.commands.send(Command::EncodeImage { pixels, to });
        encoded.recv().unwrap_or_else(|_| Err(Error::run("the engine's thread has ended")))
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
    engine: Engine,
    running: HashMap<SequenceId, (Number, Sink)>,
    ids: HashMap<Number, SequenceId>,
    usage: Arc<Mutex<Usage>>,
}

impl Loop {
    /// Runs until nobody can send commands any more.
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            if self.engine.is_idle() {
                let Ok(command) = commands.recv() else { return };
                self.take(command);
            }
            commands.try_iter().for_each(|command| self.take(command));
            let outcome = self.engine.step();
            // Before the outcomes: who has them may ask at once.
            *self.usage.lock().expect("no thread fails while it holds the lock") = self.engine.usage();
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

    fn take(&mut self, command: Command) {
        match command {
            Command::Run { ticket, tokens, images, goal, mut to } => {
                match self.engine.add(Prompt { tokens: &tokens, images: &images }, *goal) {
                    Ok(id) => {
                        self.ids.insert(ticket, id);
                        self.running.insert(id, (ticket, to));
                    }
                    Err(error) => to(Err(Arc::new(error))),
                }
            }
            Command::Cancel(ticket) => {
                if let Some(id) = self.ids.remove(&ticket) {
                    self.running.remove(&id);
                    self.engine.cancel(id);
                }
            }
            Command::EncodeImage { pixels, to } => drop(to.send(self.engine.encode_image(&pixels))),
        }
    }

    fn tell(&mut self, id: SequenceId, happened: Happened) {
        let Some((ticket, to)) = self.running.get_mut(&id) else { return };
        let is_last = matches!(happened, Happened::Finished(_) | Happened::NotNumbers);
        let outcome = match happened {
            Happened::NotNumbers => Err(Arc::new(self.engine.not_numbers())),
            happened => Ok(happened),
        };
        to(outcome);
        if is_last {
            self.ids.remove(ticket);
            self.running.remove(&id);
        }
    }
}
