//! `wgpt generate`

use super::{
    ModelArgs, interrupt, prompt::Prompt, sampling::SamplingArgs, stats::Stats, stopping::Stopping, terminal,
    terminal::Terminal,
};
use crate::{
    backend::DeviceInfo,
    engine::{EngineOptions, FinishReason, Generation},
    error::Result,
};
use clap::Args;
use serde::Serialize;
use std::io::IsTerminal;

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
    /// Say at the end what it took, on stderr
    #[arg(long)]
    stats: bool,
    /// One JSON object at the end instead of text
    #[arg(long)]
    json: bool,
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
        let sampling = self.sampling.sampling(&model, &tokenizer)?;
        let mut engine = self.model.load(&model, EngineOptions::default(), terminal)?;
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
        let timing = generation.timing();
        drop(generation);
        if self.stats {
            eprint!("{}", Stats { engine: &engine, timing });
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
