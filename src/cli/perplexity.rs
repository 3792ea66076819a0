//! `wgpt perplexity`: how well a model predicts a text.

use super::{
    ModelArgs, interrupt, open_weights,
    prompt::read_text,
    terminal,
    terminal::{Terminal, Unit},
};
use crate::{
    engine::{DEFAULT_CONTEXT, Engine, EngineOptions},
    error::{Error, Result},
    model::Model,
    sampling::{divergence, greedy, logprob},
};
use clap::Args;
use serde::Serialize;
use std::{ops::Range, path::PathBuf};

#[derive(Args)]
pub struct Perplexity {
    /// The text, UTF-8
    #[arg(short, long)]
    file: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens from one window's start to the next. Default: half the context
    #[arg(long, value_name = "TOKENS")]
    stride: Option<u32>,
    /// Another model with the same tokens, such as this one before it was quantised: how far from it the
    /// predictions are
    #[arg(long, value_name = "MODEL")]
    against: Option<String>,
    /// One JSON object with every token's log-probability
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Score<'a> {
    tokens: &'a [u32],
    logprobs: &'a [f64],
    nll: f64,
    perplexity: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Comparison>,
}

/// How far a model's predictions are from those of another model.
#[derive(Serialize)]
struct Comparison {
    model: String,
    perplexity: f64,
    /// The mean over tokens of Σ p ln(p / q), in nats; p is the other model's distribution.
    kl: f64,
    /// The share of tokens for which both models rank the same token first.
    same_top: f64,
}

/// Sums over the tokens scored so far.
#[derive(Default)]
struct Sums {
    nll: f64,
    kl: f64,
    same_top: f64,
}

impl Perplexity {
    pub fn run(&self, terminal: &Terminal) -> Result<()> {
        let (model, tokenizer) = self.model.open(terminal)?;
        let name = self.file.display();
        let tokens = tokenizer.encode(&read_text("--file", &self.file)?, true)?;
        if tokens.len() < 2 {
            return Err(Error::request(format!(
                "--file: {name} is too short: two tokens at least are needed"
            )));
        }
        let context = self.model.ctx.unwrap_or(model.architecture.max_positions.min(DEFAULT_CONTEXT));
        let stride = self.stride.unwrap_or(context / 2);
        if context < 2 {
            return Err(Error::request(format!(
                "the context is {context}, but a token and its predecessor need 2"
            )));
        }
        if stride == 0 || stride >= context {
            return Err(Error::request(format!(
                "--stride is {stride}, but it must be from 1 to {}, one less than the context: each token is \
                 scored after a predecessor",
                context - 1
            )));
        }
        let mut engine = self.load(&model, terminal)?;
        let mut other = self.other(&model, terminal)?;
        interrupt::watch();
        let mut logprobs = Vec::with_capacity(tokens.len() - 1);
        let mut sums = Sums::default();
        let bar = terminal.progress("scoring", Unit::Tokens);
        for window in windows(tokens.len(), context as usize, stride as usize) {
            // The first token that no window before this one scored.
            let from = logprobs.len() + 1;
            let (fed, scored) = (&tokens[window.clone()], from - window.start);
            match &mut other {
                None => {
                    for score in engine.scores(fed, scored)? {
                        logprobs.push(score?);
                        if interrupt::interrupted() {
                            return Ok(());
                        }
                    }
                }
                Some((_, other)) => {
                    let both = engine.predictions(fed, scored)?.zip(other.predictions(fed, scored)?);
                    for ((q, p), token) in both.zip(&fed[scored..]) {
                        let (q, p) = (q?, p?);
                        logprobs.push(logprob(&q, *token));
                        sums.nll -= logprob(&p, *token);
                        sums.kl += divergence(&p, &q);
                        sums.same_top += f64::from(greedy(&p) == greedy(&q));
                        if interrupt::interrupted() {
                            return Ok(());
                        }
                    }
                }
            }
            bar.reach(logprobs.len() as u64 + 1, tokens.len() as u64);
        }
        drop(bar);
        let n = logprobs.len() as f64;
        let nll = -logprobs.iter().sum::<f64>() / n;
        let perplexity = nll.exp();
        let against = other.map(|(model, _)| Comparison {
            model: model.name,
            perplexity: (sums.nll / n).exp(),
            kl: sums.kl / n,
            same_top: sums.same_top / n,
        });
        if self.json {
            let score = Score { tokens: &tokens, logprobs: &logprobs, nll, perplexity, against };
            return terminal::write_json(&score);
        }
        terminal::write(format_args!("{perplexity:.4}\n"))?;
        terminal.say(format_args!("perplexity of {} tokens, {nll:.4} nats each", logprobs.len()));
        if let Some(Comparison { model, perplexity, kl, same_top }) = against {
            terminal::write(format_args!(
                "against {model}: perplexity {perplexity:.4}, mean KL divergence {kl:.6}, {:.2} % of the top \
                 tokens equal\n",
                100.0 * same_top
            ))?;
        }
        Ok(())
    }

    fn load(&self, model: &Model, terminal: &Terminal) -> Result<Engine> {
        self.model.load(model, EngineOptions { scores: true, ..EngineOptions::default() }, terminal)
    }

    /// The model to compare with, on the same kind of device.
    fn other(&self, model: &Model, terminal: &Terminal) -> Result<Option<(Model, Engine)>> {
        let Some(name) = &self.against else { return Ok(None) };
        let other = open_weights(Some(name), None, terminal)?;
        let [one, two] = [model, &other].map(|model| model.architecture.vocab_size);
        if one != two {
            return Err(Error::request(format!(
                "--against {name}: it has {two} tokens, but {} {one}: only models with the same tokens can \
                 be compared",
                model.name
            )));
        }
        let engine = self.load(&other, terminal)?;
        Ok(Some((other, engine)))
    }
}

/// Windows of `context` tokens, starting at multiples of the stride. Windows that would score no new token
/// are left out.
fn windows(tokens: usize, context: usize, stride: usize) -> impl Iterator<Item = Range<usize>> {
    let last = tokens.saturating_sub(context).div_ceil(stride);
    (0..=last).map(move |i| i * stride..tokens.min(i * stride + context))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every token except the first is scored once, in the first window that contains both it and a
    /// predecessor.
    #[test]
    fn windows_score_each_token_once() {
        for (tokens, context, stride) in [
            (2, 2, 1),
            (10, 4, 2),
            (11, 4, 3),
            (100, 7, 5),
            (5, 64, 32),
            (64, 64, 32),
            (65, 64, 63),
            (9, 8, 1),
        ] {
            let mut scored = 1;
            for window in windows(tokens, context, stride) {
                assert!(window.start < scored, "a predecessor: {tokens} {context} {stride}");
                assert!(window.end > scored, "something new: {tokens} {context} {stride}");
                assert!(window.len() <= context && window.start % stride == 0);
                scored = window.end;
            }
            assert_eq!(scored, tokens, "{tokens} {context} {stride}");
        }
    }
}
