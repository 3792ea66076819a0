//! `wgpt generate`

use super::{ModelArgs, interrupt, prompt::Prompt, terminal, terminal::Terminal};
use crate::{
    backend::DeviceInfo,
    engine::{FinishReason, Generation},
    error::Result,
    model::Model,
    sampling::Sampling,
};
use clap::Args;
use serde::Serialize;
use std::{
    hash::{BuildHasher, RandomState},
    io::IsTerminal,
};

#[derive(Args)]
pub struct Generate {
    #[command(flatten)]
    prompt: Prompt,
    #[command(flatten)]
    model: ModelArgs,
    /// The most tokens to generate
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 256)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Stop where the text says this; may be given again
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// One JSON object at the end instead of text
    #[arg(long)]
    json: bool,
}

/// How tokens are picked; what is absent comes from generation_config.json, or else is the default said here.
#[derive(Args)]
struct SamplingArgs {
    /// How adventurous; 0: always the most probable token [default: 0.8]
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Always the most probable token
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
    /// Consider only the K most probable tokens; 0: all
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Consider only the fewest tokens whose probabilities reach P [default: 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Consider only tokens at least P times as probable as the best
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// What chance starts from: the same seed gives the same text on the same device. Default: random
    #[arg(long)]
    seed: Option<u64>,
}

impl SamplingArgs {
    fn sampling(&self, model: &Model) -> Result<Sampling> {
        let defaults = &model.defaults;
        let temperature = match self.greedy {
            true => 0.0,
            false => self.temperature.or(defaults.temperature).unwrap_or(0.8),
        };
        let sampling = Sampling {
            temperature,
            top_k: self.top_k.or(defaults.top_k).unwrap_or(0),
            top_p: self.top_p.or(defaults.top_p).unwrap_or(0.95),
            min_p: self.min_p.or(defaults.min_p).unwrap_or(0.0),
            seed: self.seed.unwrap_or_else(|| RandomState::new().hash_one(())),
        };
        sampling.check()?;
        Ok(sampling)
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    device: &'a DeviceInfo,
    prompt_tokens: &'a [u32],
    tokens: &'a [u32],
    text: &'a str,
    finish_reason: FinishReason,
    timings: Timings,
}

#[derive(Serialize)]
struct Timings {
    load_s: f64,
    compile_s: f64,
    prefill_tokens: usize,
    prefill_s: f64,
    decode_tokens: usize,
    decode_s: f64,
}

impl Generate {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let (model, tokenizer) = self.model.open(terminal)?;
        let prompt = self.prompt.tokens(&model, &tokenizer, terminal)?;
        let sampling = self.sampling.sampling(&model)?;
        let mut engine = self.model.load(&model, false, terminal)?;
        if !sampling.is_greedy() && self.sampling.seed.is_none() {
            terminal.say(format_args!("seed {}", sampling.seed));
        }
        let (device, load_time) = (engine.device().clone(), engine.load_time);
        let mut generation = engine.generate(&prompt, sampling, self.max_tokens)?;
        interrupt::watch();
        let mut answer = Stopping::new(&self.stop);
        let mut stream = tokenizer.stream(&prompt);
        let mut tokens = Vec::new();
        let mut open = true;
        while let Some(id) = generation.next() {
            let id = id?;
            tokens.push(id);
            // The token that ends a text is part of the tokens, not of the text.
            let is_end = generation.finish_reason() == Some(FinishReason::Stop);
            let text = if is_end { String::new() } else { stream.push(id) };
            open = self.show(answer.push(&text))?;
            if answer.stopped || !open || interrupt::interrupted() {
                break;
            }
        }
        if open && !answer.stopped {
            open = self.show(answer.push(&stream.finish()))? && self.show(answer.finish())?;
        }
        if open && !self.json && std::io::stdout().is_terminal() {
            terminal::write("\n")?;
        }
        if self.json {
            let timings = timings(&generation, load_time);
            terminal::write_json(&Answer {
                model: &model.name,
                device: &device,
                prompt_tokens: &prompt,
                tokens: &tokens,
                text: &answer.text,
                finish_reason: match answer.stopped {
                    true => FinishReason::Stop,
                    false => generation.finish_reason().unwrap_or(FinishReason::Stop),
                },
                timings,
            })?;
        }
        Ok(())
    }

    /// Shows a piece of the answer, unless all of it will come as JSON; false where nobody reads it any more.
    fn show(&self, text: &str) -> Result<bool> {
        if self.json || text.is_empty() { Ok(true) } else { terminal::write(text) }
    }
}

fn timings(generation: &Generation, load: crate::engine::LoadTime) -> Timings {
    let timing = generation.timing();
    Timings {
        load_s: load.load.as_secs_f64(),
        compile_s: load.compile.as_secs_f64(),
        prefill_tokens: timing.prefill_tokens,
        prefill_s: timing.prefill.as_secs_f64(),
        decode_tokens: timing.decode_tokens,
        decode_s: timing.decode.as_secs_f64(),
    }
}

/// The answer's text so far, up to the first stop string. What could be the beginning of one is held back until it
/// is clear that it is not.
struct Stopping<'a> {
    stops: &'a [String],
    text: String,
    /// Bytes of `text` that were given out.
    shown: usize,
    stopped: bool,
}

impl<'a> Stopping<'a> {
    fn new(stops: &'a [String]) -> Self {
        Self { stops, text: String::new(), shown: 0, stopped: false }
    }

    /// Takes in a piece; what of the text can be shown now.
    fn push(&mut self, piece: &str) -> &str {
        self.text.push_str(piece);
        let stops = || self.stops.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops().filter_map(|stop| self.text.find(stop.as_str())).min() {
            self.text.truncate(at);
            self.stopped = true;
        }
        let mut end = self.text.len();
        if !self.stopped {
            let is_beginning = |tail: &str| stops().any(|stop| stop.starts_with(tail));
            let tails = self.text[self.shown..].char_indices().map(|(at, _)| self.shown + at);
            end = tails.into_iter().find(|at| is_beginning(&self.text[*at..])).unwrap_or(end);
        }
        self.give(end)
    }

    /// What was held back.
    fn finish(&mut self) -> &str {
        self.give(self.text.len())
    }

    fn give(&mut self, end: usize) -> &str {
        let from = self.shown.min(end);
        self.shown = end;
        &self.text[from..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut stopping = Stopping::new(&stops);
        let mut shown = Vec::new();
        for piece in pieces {
            shown.push(stopping.push(piece).to_owned());
            if stopping.stopped {
                break;
            }
        }
        shown.push(stopping.finish().to_owned());
        (shown, stopping.text.clone(), stopping.stopped)
    }

    #[test]
    fn a_stop_string_ends_the_text_even_across_pieces() {
        let (shown, text, stopped) = run(&["END"], &["one E", "N", "D two", "three"]);
        assert_eq!((text.as_str(), stopped), ("one ", true));
        assert_eq!(shown.concat(), "one ");
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_shown() {
        let (shown, text, stopped) = run(&["END", "\n\n"], &["an E", "Nd\n", "of it é", "\n"]);
        assert_eq!((text.as_str(), stopped), ("an ENd\nof it é\n", false));
        assert_eq!(shown, ["an ", "ENd", "\nof it é", "", "\n"]);
    }

    #[test]
    fn the_first_of_several_counts_and_an_empty_one_does_not() {
        let (_, text, stopped) = run(&["", "c", "b"], &["abc"]);
        assert_eq!((text.as_str(), stopped), ("a", true));
    }
}
