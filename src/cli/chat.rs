//! `wgpt chat`

use super::{
    ModelArgs, interrupt, lines::Lines, sampling::SamplingArgs, stats::Stats, stopping::Stopping, terminal,
    terminal::Terminal,
};
use crate::{
    chat::{Message, Template},
    engine::{Engine, EngineOptions, FinishReason, Timing},
    error::{Error, Result},
    model::Model,
    sampling::Sampling,
    tokenizer::Tokenizer,
};
use clap::Args;
use std::num::NonZero;

#[derive(Args)]
pub struct Chat {
    #[command(flatten)]
    model: ModelArgs,
    /// What the model is told before all else
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The most tokens of an answer
    #[arg(short = 'n', long, value_name = "TOKENS", default_value = "1024")]
    max_tokens: NonZero<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// End an answer where it says this; may be given again
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

const HELP: &str = "\
/system [TEXT]    what the model is told before all else; without a text: nothing any more
/clear            forget what was said
/regen            answer the last message anew
/save FILE        write the conversation down, as JSON
/load FILE        go on with one that was
/set NAME VALUE   temperature, top_k, top_p, min_p, typical_p, xtc_probability, xtc_threshold, dry_multiplier,
                  repeat_penalty, frequency_penalty, presence_penalty, seed, max_tokens
/stats            how fast the last answer came, and how full the context is
/help             these lines
A line that ends in \\ goes on in the next, and what stands between two lines of \"\"\" is one message.
Ctrl-C ends an answer, Ctrl-D the conversation.
";

impl Chat {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let (model, tokenizer) = self.model.open(terminal)?;
        let template = Template::of(&model)?;
        let sampling = self.sampling.sampling(&model, &tokenizer)?;
        let engine = self.model.load(&model, EngineOptions::default(), terminal)?;
        let mut stops = self.stop.clone();
        stops.extend(template.stop().map(str::to_owned));
        if template.is_plain() {
            tracing::warn!(
                "{} has no chat template: it is asked in the plain form \"User: …\" and \"Assistant: …\", which it was \
                 hardly taught",
                model.name
            );
        }
        let mut lines = Lines::open();
        let mut session = Session {
            ends: ends(&model, &tokenizer, &template)?,
            said: self.system.iter().map(|text| Message::new("system", text)).collect(),
            model,
            tokenizer,
            template,
            engine,
            sampling,
            max_tokens: self.max_tokens.get(),
            stops,
            last: None,
            is_typed: lines.are_typed(),
            terminal,
        };
        if lines.are_typed() {
            terminal.say(format_args!("Say something, or /help; Ctrl-D ends the conversation."));
        }
        while let Some(line) = lines.next()? {
            let outcome = match line.strip_prefix('/').filter(|_| lines.are_typed()) {
                Some(command) => session.command(command),
                None if line.trim().is_empty() => Ok(true),
                None => session.turn(line),
            };
            match outcome {
                Ok(true) => (),
                // Nobody reads any more.
                Ok(false) => break,
                // A wrong word of somebody at a terminal ends nothing.
                Err(e) if lines.are_typed() && e.exit_code() == 2 => terminal.fail(&e),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The ids that end a turn: those that end a text, and the special token that stands after an answer.
fn ends(model: &Model, tokenizer: &Tokenizer, template: &Template) -> Result<Vec<u32>> {
    let mut ends = model.eos.clone();
    let after = tokenizer.encode(&template.end_of_turn(), false)?;
    ends.extend(after.first().filter(|id| tokenizer.is_special(**id)));
    Ok(ends)
}

/// A conversation, and what it takes.
struct Session<'a> {
    model: Model,
    tokenizer: Tokenizer,
    template: Template,
    engine: Engine,
    sampling: Sampling,
    max_tokens: usize,
    stops: Vec<String>,
    /// The ids that end a turn.
    ends: Vec<u32>,
    said: Vec<Message>,
    /// Of the last answer.
    last: Option<(Timing, usize)>,
    /// Whether somebody types what is said.
    is_typed: bool,
    terminal: &'a Terminal,
}

impl Session<'_> {
    /// Says something and shows the answer; false where nobody reads it any more.
    fn turn(&mut self, text: String) -> Result<bool> {
        self.said.push(Message::new("user", text));
        let outcome = self.answer();
        if outcome.is_err() {
            // It was not answered: as if it had not been said.
            self.said.pop();
        }
        outcome
    }

    fn answer(&mut self) -> Result<bool> {
        let prompt = self.prompt()?;
        let mut answer = Stopping::new(&self.stops);
        let mut stream = self.tokenizer.stream(&prompt);
        let mut open = true;
        interrupt::watch();
        let mut generation = self.engine.resume(&prompt, self.sampling.clone(), self.max_tokens)?;
        for id in generation.by_ref() {
            let id = id?;
            if self.ends.contains(&id) {
                break;
            }
            let text = stream.push(id);
            // An answer begins where its first word does.
            let is_begun = !answer.text.trim_start().is_empty();
            let shown = answer.push(&text);
            let shown = if is_begun { shown } else { shown.trim_start() };
            open = shown.is_empty() || terminal::write(shown)?;
            if answer.stopped || !open || interrupt::interrupted() {
                break;
            }
        }
        let (timing, is_cut) =
            (generation.timing(), generation.finish_reason() == Some(FinishReason::Length));
        drop(generation);
        if open && !answer.stopped {
            answer.push(&stream.finish());
            let rest = answer.finish();
            open = rest.is_empty() || terminal::write(rest)?;
        }
        open = open && terminal::write("\n")?;
        if interrupt::interrupted() {
            // Somebody at a terminal ends an answer by it, and a program that only pipes lines in, all.
            open = open && self.is_typed;
        } else if is_cut {
            self.terminal.say(format_args!(
                "(cut: an answer has at most {} tokens, and the context {})",
                self.max_tokens,
                self.engine.context()
            ));
        }
        self.said.push(Message::new("assistant", answer.text.clone()));
        self.last = Some((timing, prompt.len() + timing.decode_tokens + 1));
        if self.is_typed {
            interrupt::unwatch();
        }
        Ok(open)
    }

    /// The conversation's tokens, without its oldest turns where these leave no room for an answer.
    fn prompt(&mut self) -> Result<Vec<u32>> {
        let context = self.engine.context() as usize;
        let room = self.max_tokens.min(context / 4).max(1);
        let first = usize::from(self.said.first().is_some_and(|message| message.role == "system"));
        let mut dropped = 0;
        loop {
            let text = self.template.render(&self.said, true)?;
            // A template writes down all that a text begins with.
            let mut tokens = self.tokenizer.encode(&text, self.template.is_plain())?;
            if tokens.is_empty() {
                tokens.extend(self.model.bos);
            }
            // What was just said stays, and with it the template's right to refuse it.
            let turns = self.said.len() - first;
            if tokens.len() + room <= context || turns < 3 {
                if dropped > 0 {
                    self.terminal.say(format_args!(
                        "(the context of {context} tokens is full: the oldest {dropped} messages are forgotten)"
                    ));
                }
                return Ok(tokens);
            }
            self.said.drain(first..first + 2);
            dropped += 2;
        }
    }

    /// Does what a line after its / says; false where nobody reads any more.
    fn command(&mut self, line: &str) -> Result<bool> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match name {
            "help" | "?" => return terminal::write(HELP),
            "system" => {
                self.said.retain(|message| message.role != "system");
                if !rest.is_empty() {
                    self.said.insert(0, Message::new("system", rest));
                }
            }
            "clear" => self.said.retain(|message| message.role == "system"),
            "regen" => {
                if self.said.last().is_some_and(|message| message.role == "assistant") {
                    self.said.pop();
                }
                if self.said.last().is_none_or(|message| message.role != "user") {
                    return Err(Error::request("/regen: nothing was said that could be answered anew"));
                }
                // Else chance would give the same.
                self.sampling.seed = self.sampling.seed.wrapping_add(1);
                return self.answer();
            }
            "save" => {
                let text = serde_json::to_string_pretty(&self.said).expect("plain data");
                std::fs::write(file(name, rest)?, text + "\n").map_err(|e| {
                    Error::request(format!("/save: {rest} cannot be written: {e}")).because(e)
                })?;
            }
            "load" => {
                let text = std::fs::read_to_string(file(name, rest)?)
                    .map_err(|e| Error::request(format!("/load: {rest} cannot be read: {e}")).because(e))?;
                self.said = serde_json::from_str(&text).map_err(|e| {
                    Error::request(format!("/load: {rest} is not a conversation: {e}")).because(e)
                })?;
                self.terminal.say(format_args!("{} messages", self.said.len()));
            }
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
        fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
            let wrong =
                |_| Error::request(format!("/set {name}: {value} is no number that could stand there"));
            value.parse().map_err(wrong)
        }
        let mut sampling = self.sampling.clone();
        match name {
            "temperature" => sampling.temperature = number(name, value)?,
            "top_k" => sampling.top_k = number(name, value)?,
            "top_p" => sampling.top_p = number(name, value)?,
            "min_p" => sampling.min_p = number(name, value)?,
            "typical_p" => sampling.typical_p = number(name, value)?,
            "xtc_probability" => sampling.xtc.probability = number(name, value)?,
            "xtc_threshold" => sampling.xtc.threshold = number(name, value)?,
            "dry_multiplier" => sampling.dry.multiplier = number(name, value)?,
            "repeat_penalty" => sampling.penalties.repetition = number(name, value)?,
            "frequency_penalty" => sampling.penalties.frequency = number(name, value)?,
            "presence_penalty" => sampling.penalties.presence = number(name, value)?,
            "seed" => sampling.seed = number(name, value)?,
            "max_tokens" => self.max_tokens = number::<NonZero<usize>>(name, value)?.get(),
            _ => {
                return Err(Error::request(format!(
                    "/set knows temperature, top_k, top_p, min_p, typical_p, xtc_probability, xtc_threshold, dry_multiplier, \
                     repeat_penalty, frequency_penalty, presence_penalty, seed and max_tokens, but not {name}"
                )));
            }
        }
        sampling.check()?;
        self.sampling = sampling;
        Ok(())
    }

    fn stats(&self) -> Result<bool> {
        let Some((timing, tokens)) = self.last else { return terminal::write("no answer yet\n") };
        let stats = Stats { engine: &self.engine, timing };
        terminal::write(format!(
            "{stats}{tokens} of {} tokens of the context are taken\n",
            self.engine.context()
        ))
    }
}

/// A command's file.
fn file<'a>(command: &str, name: &'a str) -> Result<&'a str> {
    match name.is_empty() {
        true => Err(Error::request(format!("/{command} takes the name of a file"))),
        false => Ok(name),
    }
}
