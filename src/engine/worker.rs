//! An engine on a thread of its own, for servers. Any thread can send requests, and each request receives its
//! own events.

use super::{Engine, Goal, Happened, Placed, Prompt, SequenceId};
use crate::{
    error::{Error, Result},
    prompt::Features,
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

/// An event of a request, or the error that ends it.
pub type Outcome = Result<Happened, Arc<Error>>;

/// The number of a request. It is assigned before the engine adds the sequence.
type Ticket = u64;

enum Command {
    Run { ticket: Ticket, tokens: Vec<u32>, images: Vec<Placed>, goal: Box<Goal>, to: Sender<Outcome> },
    Cancel(Ticket),
    EncodeImage { pixels: Vec<f32>, to: Sender<Result<Features>> },
}

/// A handle to the engine's thread. The thread ends when the worker and all its requests are dropped.
pub struct Worker {
    commands: Sender<Command>,
    next: AtomicU64,
}

impl Worker {
    /// Moves an engine to a thread of its own.
    ///
    /// # Errors
    /// Of the kind Run if the thread cannot be started.
    pub fn start(engine: Engine) -> Result<Self> {
        let (commands, incoming) = channel();
        std::thread::Builder::new()
            .name("wgpt engine".to_owned())
            .spawn(move || Loop { engine, running: HashMap::new(), ids: HashMap::new() }.run(&incoming))
            .map_err(|e| Error::run(format!("the engine's thread could not be started: {e}")).because(e))?;
        Ok(Self { commands, next: AtomicU64::new(0) })
    }

    /// Adds a sequence. If the request is invalid, its first and only outcome is an error.
    pub fn run(&self, tokens: Vec<u32>, images: Vec<Placed>, goal: Goal) -> Running {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let (to, outcomes) = channel();
        let commands = self.commands.clone();
        // If the thread has ended, the first outcome says so.
        let goal = Box::new(goal);
        let _ = commands.send(Command::Run { ticket, tokens, images, goal, to });
        Running { commands, ticket, outcomes, ended: false }
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

/// A running request: an iterator over its outcomes, which blocks until the next one. Dropping it cancels the
/// request.
pub struct Running {
    commands: Sender<Command>,
    ticket: Ticket,
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

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Cancel(self.ticket));
    }
}

/// The thread's state. It takes commands between steps.
struct Loop {
    engine: Engine,
    running: HashMap<SequenceId, (Ticket, Sender<Outcome>)>,
    ids: HashMap<Ticket, SequenceId>,
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
            match self.engine.step() {
                Ok(events) => events.into_iter().for_each(|event| self.tell(event.sequence, event.happened)),
                Err(error) => {
                    let error = Arc::new(error);
                    self.ids.clear();
                    for (_, (_, to)) in self.running.drain() {
                        let _ = to.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Run { ticket, tokens, images, goal, to } => {
                match self.engine.add(Prompt { tokens: &tokens, images: &images }, *goal) {
                    Ok(id) => {
                        self.ids.insert(ticket, id);
                        self.running.insert(id, (ticket, to));
                    }
                    // Sending fails if the request was dropped in the meantime.
                    Err(error) => drop(to.send(Err(Arc::new(error)))),
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
        let Some((ticket, to)) = self.running.get(&id) else { return };
        let is_last = matches!(happened, Happened::Finished(_) | Happened::NotNumbers);
        let outcome = match happened {
            Happened::NotNumbers => Err(Arc::new(self.engine.not_numbers())),
            happened => Ok(happened),
        };
        // If the request was dropped, its cancel command is on its way.
        let _ = to.send(outcome);
        if is_last {
            self.ids.remove(ticket);
            self.running.remove(&id);
        }
    }
}
