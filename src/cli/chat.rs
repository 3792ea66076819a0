//! `wgpt chat`: a conversation on the terminal or over stdin.

use super::{
    DeviceArgs, ModelArgs, interrupt,
    lines::Lines,
    sampling::SamplingArgs,
    stats,
    stats::Stats,
    terminal,
    terminal::{Terminal, Unit},
};
use crate::{
    backend::Bandwidth,
    chat::Message,
    engine::{EngineOptions, FinishReason, Timing},
    error::{Error, Result},
    image::Image,
    language_model::{Answer, Conversation, LanguageModel, Request},
    model::Model,
    sampling::Sampling,
};
use clap::Args;
use std::{cell::OnceCell, num::NonZero, path::Path, str::FromStr};

#[derive(Args)]
pub struct Chat {
    #[command(flatten)]
    model: ModelArgs,
    /// What the model is told before all else
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The most tokens of an answer; absent, the max_new_tokens of generation_config.json [default: 1024]
    #[arg(short = 'n', long, value_name = "TOKENS")]
    max_tokens: Option<NonZero<usize>>,
    /// End an answer where it says this, and not where generation_config.json says; may be given again
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    // Last, because its help heading applies to all flags after it.
    #[command(flatten)]
    sampling: SamplingArgs,
}

const HELP: &str = "\
/system [TEXT]    what the model is told before all else; without a text: nothing any more
/clear            forget what was said
/image FILE       show an image with the next message, to a model that sees
/regen            answer the last message anew
/save FILE        write the conversation down, as JSON
/load FILE        go on with one that was
/set NAME VALUE   how tokens are picked from now on; /set alone names what there is
/stats            how fast the last answer came, and how full the context is
/help             these lines
A line that ends in \\ goes on in the next, and what stands between two lines of \"\"\" is one message.
Ctrl-C ends an answer, Ctrl-D the conversation.
";

/// A name for /set, and a function that sets its value; the function returns none where the value does not
/// parse.
type Setting = (&'static str, fn(&mut Request, &str) -> Option<()>);
const SETTINGS: [Setting; 15] = [
    ("temperature", |r, v| set(&mut r.sampling.temperature, v)),
    ("top_k", |r, v| set(&mut r.sampling.top_k, v)),
    ("top_p", |r, v| set(&mut r.sampling.top_p, v)),
    ("min_p", |r, v| set(&mut r.sampling.min_p, v)),
    ("typical_p", |r, v| set(&mut r.sampling.typical_p, v)),
    ("xtc_probability", |r, v| set(&mut r.sampling.xtc.probability, v)),
    ("xtc_threshold", |r, v| set(&mut r.sampling.xtc.threshold, v)),
    ("repeat_penalty", |r, v| set(&mut r.sampling.penalties.repetition, v)),
    ("frequency_penalty", |r, v| set(&mut r.sampling.penalties.frequency, v)),
    ("presence_penalty", |r, v| set(&mut r.sampling.penalties.presence, v)),
    ("dry_multiplier", |r, v| set(&mut r.sampling.dry.multiplier, v)),
    ("dry_base", |r, v| set(&mut r.sampling.dry.base, v)),
    ("dry_allowed_length", |r, v| set(&mut r.sampling.dry.allowed, v)),
    ("seed", |r, v| set(&mut r.sampling.seed, v)),
    ("max_tokens", |r, v| {
        r.max_tokens = v.parse::<NonZero<usize>>().ok()?.get();
        Some(())
    }),
];

fn set<T: FromStr>(to: &mut T, value: &str) -> Option<()> {
    *to = value.parse().ok()?;
    Some(())
}

fn setting_names() -> String {
    SETTINGS.map(|(name, _)| name).join(", ")
}

impl Chat {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let (model, tokenizer) = self.model.open(terminal)?;
        let sampling = self.sampling.sampling(&model, &tokenizer)?;
        // One person waits for the answer: what the last one left in the cache is not computed again.
        let options = EngineOptions { share_decoded: true, ..EngineOptions::default() };
        let engine = self.model.load(&model, options, terminal)?;
        let mut language_model = LanguageModel { model, tokenizer, engine };
        let request = self.request(&language_model.model, sampling);
        let mut conversation = language_model.chat(request)?;
        if conversation.is_plain() {
            tracing::warn!(
                "{} has no chat template: it is asked in the plain form \"User: …\" and \"Assistant: \
                 …\", which it was hardly taught",
                conversation.language_model().model.name
            );
        }
        if !conversation.can_end() {
            tracing::warn!(
                "{} names no token that ends an answer: each goes on to its most tokens, which -n sets",
                conversation.language_model().model.name
            );
        }
        conversation.said.extend(self.system.iter().map(|text| Message::new("system", text)));
        let mut lines = Lines::open();
        let mut session = Session {
            conversation,
            last: None,
            is_typed: lines.are_typed(),
            terminal,
            device: &self.model.device,
            bandwidth: OnceCell::new(),
        };
        if lines.are_typed() {
            terminal.say(format_args!("Say something, or /help; Ctrl-D ends the conversation."));
        }
        while let Some(line) = lines.next()? {
            let outcome = match line.strip_prefix('/').filter(|_| lines.are_typed()) {
                Some(command) => session.command(command),
                None if line.trim().is_empty() => Ok(true),
                None => session.turn(|conversation| conversation.say(line)),
            };
            match outcome {
                Ok(true) => (),
                // The reader of stdout has gone.
                Ok(false) => break,
                // A wrong command or setting does not end a conversation that someone types.
                Err(e) if lines.are_typed() && e.exit_code() == 2 => terminal.fail(&e),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// What the flags ask for, else what the model's generation_config.json recommends.
    fn request(&self, model: &Model, sampling: Sampling) -> Request {
        let max_tokens = self.max_tokens.map(NonZero::get).or(model.defaults.max_new_tokens).unwrap_or(1024);
        let stop = if self.stop.is_empty() { &model.defaults.stop_strings } else { &self.stop };
        Request { sampling, max_tokens, stop: stop.clone() }
    }
}

/// A conversation, with the terminal and the device of the user.
struct Session<'a> {
    conversation: Conversation<'a>,
    /// After the last answer: how long it took, and the number of tokens in the conversation.
    last: Option<(Timing, usize)>,
    /// Whether someone types at a terminal, rather than a program piping lines in.
    is_typed: bool,
    terminal: &'a Terminal,
    device: &'a DeviceArgs,
    /// The device's bandwidth, measured when it is first asked for.
    bandwidth: OnceCell<Option<Bandwidth>>,
}

impl<'a> Session<'a> {
    /// Runs one turn and shows the answer. Returns false where nobody reads stdout any more.
    fn turn(
        &mut self,
        say: impl for<'b> FnOnce(&'b mut Conversation<'a>) -> Result<Answer<'b>>,
    ) -> Result<bool> {
        interrupt::watch();
        let context = self.conversation.language_model().engine.context();
        let max_tokens = self.conversation.request.max_tokens;
        let mut answer = say(&mut self.conversation)?;
        if answer.forgotten > 0 {
            self.terminal.say(format_args!(
                "(the context of {context} tokens is full: the oldest {} messages are forgotten)",
                answer.forgotten
            ));
        }
        let bar = self.terminal.progress("reading", Unit::Tokens);
        while !interrupt::interrupted()
            && let Some((done, all)) = answer.read()?
        {
            bar.reach(done as u64, all as u64);
        }
        drop(bar);
        let mut outcome = Ok(true);
        while outcome.as_ref().is_ok_and(|open| *open && !interrupt::interrupted()) {
            let Some(piece) = answer.next() else { break };
            outcome =
                piece.and_then(|piece| if piece.is_empty() { Ok(true) } else { terminal::write(piece) });
        }
        // An interruption while the prompt is read is not a failure.
        let mut open = if interrupt::interrupted() { outcome.unwrap_or(true) } else { outcome? };
        let rest = answer.finish();
        open = open && terminal::write(rest + "\n")?;
        let timing = answer.text().timing();
        let is_cut = answer.text().finish_reason() == Some(FinishReason::Length);
        self.last = Some((timing, answer.prompt_tokens + timing.decode_tokens + 1));
        drop(answer);
        if interrupt::interrupted() {
            // At a terminal, Ctrl-C ends the answer; if lines are piped in, it ends the conversation.
            open = open && self.is_typed;
        } else if is_cut {
            self.terminal.say(format_args!(
                "(cut: an answer has at most {max_tokens} tokens, and the context {context})"
            ));
        }
        if self.is_typed {
            interrupt::unwatch();
        }
        Ok(open)
    }

    /// Runs a command: `line` is what follows the /. Returns false where nobody reads stdout any more.
    fn command(&mut self, line: &str) -> Result<bool> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match name {
            "help" | "?" => return terminal::write(HELP),
            "system" => {
                self.conversation.said.retain(|message| message.role != "system");
                if !rest.is_empty() {
                    self.conversation.said.insert(0, Message::new("system", rest));
                }
            }
            "clear" => {
                self.conversation.said.retain(|message| message.role == "system");
                self.conversation.pending_images.clear();
            }
            "image" => self.conversation.add_image(&Image::open(Path::new(file(name, rest)?))?)?,
            "regen" => return self.turn(Conversation::regenerate),
            "save" => {
                let text = serde_json::to_string_pretty(&self.conversation.said).expect("plain data");
                std::fs::write(file(name, rest)?, text + "\n").map_err(|e| {
                    Error::request(format!("/save: {rest} cannot be written: {e}")).because(e)
                })?;
                if self.conversation.said.iter().any(|message| !message.images.is_empty()) {
                    self.terminal.say(format_args!("(its images are not written down)"));
                }
            }
            "load" => {
                let text = std::fs::read_to_string(file(name, rest)?)
                    .map_err(|e| Error::request(format!("/load: {rest} cannot be read: {e}")).because(e))?;
                self.conversation.said = serde_json::from_str(&text).map_err(|e| {
                    Error::request(format!("/load: {rest} is not a conversation: {e}")).because(e)
                })?;
                self.terminal.say(format_args!("{} messages", self.conversation.said.len()));
            }
            "set" if rest.is_empty() => return terminal::write(setting_names() + "\n"),
            "set" => self.set(rest)?,
            "stats" => return self.stats(),
            _ => return Err(Error::request(format!("there is no command /{name}: /help names them"))),
        }
        Ok(true)
    }

    fn set(&mut self, words: &str) -> Result<()> {
        let mut words = words.split_whitespace();
        let (Some(name), Some(value), None) = (words.next(), words.next(), words.next()) else {
            return Err(Error::request("/set takes a name and a value, as in /set temperature 0.5"));
        };
        let Some((_, set)) = SETTINGS.iter().find(|(known, _)| *known == name) else {
            return Err(Error::request(format!("/set does not know {name}: there are {}", setting_names())));
        };
        let mut request = self.conversation.request.clone();
        set(&mut request, value).ok_or_else(|| {
            Error::request(format!("/set {name}: {value} is no number that could stand there"))
        })?;
        request.sampling.check()?;
        self.conversation.request = request;
        Ok(())
    }

    fn stats(&self) -> Result<bool> {
        let Some((timing, tokens)) = self.last else { return terminal::write("no answer yet\n") };
        let engine = &self.conversation.language_model().engine;
        let bandwidth = *self.bandwidth.get_or_init(|| stats::bandwidth(self.device));
        let stats = Stats { engine, prompt_tokens: tokens - timing.decode_tokens, timing, bandwidth };
        terminal::write(format!("{stats}{tokens} of {} tokens of the context are taken\n", engine.context()))
    }
}

/// The file that a command names; an error where it names none.
fn file<'a>(command: &str, name: &'a str) -> Result<&'a str> {
    match name.is_empty() {
        true => Err(Error::request(format!("/{command} takes the name of a file"))),
        false => Ok(name),
    }
}
