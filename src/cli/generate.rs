//! `wgpt generate`: continues a prompt.

use super::{
    ModelArgs, interrupt,
    prompt::PromptArgs,
    sampling::SamplingArgs,
    stats,
    stats::Stats,
    terminal,
    terminal::{Terminal, Unit},
};
use crate::{
    backend::DeviceInfo,
    engine::{EngineOptions, FinishReason, LoadTime, Prompt, Timing},
    error::Result,
    image::Image,
    language_model::{LanguageModel, Request},
    model::Model,
    sampling::Sampling,
};
use clap::Args;
use serde::Serialize;
use std::{io::IsTerminal, path::PathBuf};

#[derive(Args)]
pub struct Generate {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// An image for a model that sees, in the place of `<image>` in the prompt, or before it; may be given
    /// again
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// The most tokens to generate; absent, as generation_config.json says [default: 256]
    #[arg(short = 'n', long, value_name = "TOKENS")]
    max_tokens: Option<usize>,
    /// Stop where the text says this, and not where generation_config.json says; may be given again
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Say at the end what it took, on stderr
    #[arg(long)]
    stats: bool,
    /// One JSON object at the end instead of text
    #[arg(long)]
    json: bool,
    // Last, because its help heading applies to all flags after it.
    #[command(flatten)]
    sampling: SamplingArgs,
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
        let images = self.image.iter().map(|path| Image::open(path)).collect::<Result<Vec<_>>>()?;
        let (model, tokenizer) = self.model.open(terminal)?;
        let prompt = self.prompt.tokens(&model, &tokenizer, terminal)?;
        let sampling = self.sampling.sampling(&model, &tokenizer)?;
        let engine = self.model.load(&model, EngineOptions::default(), terminal)?;
        if !sampling.is_greedy() && self.sampling.seed.is_none() {
            terminal.say(format_args!("seed {}", sampling.seed));
        }
        let (device, load_time) = (engine.device().clone(), engine.load_time);
        let mut language_model = LanguageModel { model, tokenizer, engine };
        interrupt::watch();
        let features =
            images.iter().map(|image| language_model.encode_image(image)).collect::<Result<Vec<_>>>()?;
        let (prompt, images) = language_model.place(prompt, &features)?;
        let request = self.request(&language_model.model, sampling, prompt.len());
        if language_model.model.eos.is_empty() {
            terminal.say(format_args!(
                "{} names no token that ends a text: it goes on to {} tokens, which -n sets",
                language_model.model.name, request.max_tokens
            ));
        }
        let mut answer = language_model
            .generate_from(Prompt { tokens: &prompt, images: &images, adapters: None }, &request)?;
        let bar = terminal.progress("reading the prompt", Unit::Tokens);
        while !interrupt::interrupted()
            && let Some((done, all)) = answer.read()?
        {
            bar.reach(done as u64, all as u64);
        }
        drop(bar);
        let mut open = true;
        while open
            && !interrupt::interrupted()
            && let Some(piece) = answer.next()
        {
            open = self.show(&piece?)?;
        }
        let rest = answer.finish();
        open = open && self.show(&rest)?;
        if open && !self.json && std::io::stdout().is_terminal() {
            terminal::write("\n")?;
        }
        let timing = answer.timing();
        if self.json {
            let (tokens, text) = (answer.tokens().to_vec(), answer.text().to_owned());
            let finish_reason = answer.finish_reason().unwrap_or(FinishReason::Stop);
            drop(answer);
            terminal::write_json(&Answer {
                model: &language_model.model.name,
                device: &device,
                prompt_tokens: &prompt,
                tokens: &tokens,
                text: &text,
                finish_reason,
                timings: timings(timing, load_time),
            })?;
        } else {
            drop(answer);
        }
        if self.stats {
            let (engine, bandwidth) = (&language_model.engine, stats::bandwidth(&self.model.device));
            let stats = Stats { engine, prompt_tokens: prompt.len(), timing, bandwidth };
            terminal::write_stderr(format_args!("{stats}"));
        }
        Ok(())
    }

    /// What the flags ask for, else what the model's generation_config.json recommends.
    fn request(&self, model: &Model, sampling: Sampling, prompt: usize) -> Request {
        let max_tokens = self.max_tokens.or_else(|| model.defaults.max_tokens(prompt)).unwrap_or(256);
        let stop = if self.stop.is_empty() { &model.defaults.stop_strings } else { &self.stop };
        Request { sampling, max_tokens, stop: stop.clone() }
    }

    /// Shows a piece of the answer, unless the whole answer comes as JSON later. Returns false where nobody
    /// reads stdout any more.
    fn show(&self, text: &str) -> Result<bool> {
        if self.json || text.is_empty() { Ok(true) } else { terminal::write(text) }
    }
}

fn timings(timing: Timing, load: LoadTime) -> Timings {
    Timings {
        load_s: load.load.as_secs_f64(),
        compile_s: load.compile.as_secs_f64(),
        prefill_tokens: timing.prefill_tokens,
        prefill_s: timing.prefill.as_secs_f64(),
        decode_tokens: timing.decode_tokens,
        decode_s: timing.decode.as_secs_f64(),
    }
}
