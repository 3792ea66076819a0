//! The flags that say how tokens are picked.

use crate::{
    error::Result,
    model::Model,
    sampling::{Penalties, Sampling},
};
use clap::Args;
use std::hash::{BuildHasher, RandomState};

/// How tokens are picked; what is absent comes from generation_config.json, or else is the default said here.
#[derive(Args)]
pub struct SamplingArgs {
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
    /// Make tokens that were there before less likely: divides their logits; 1: does not
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// Take this off a token's logit for each time that it was there
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Take this off a token's logit if it was there
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Of how many of the last tokens, prompt included; 0: of all
    #[arg(long, value_name = "N", default_value_t = 0)]
    repeat_last_n: u32,
    /// What chance starts from: the same seed gives the same text on the same device. Default: random
    #[arg(long)]
    pub seed: Option<u64>,
}

impl SamplingArgs {
    pub fn sampling(&self, model: &Model) -> Result<Sampling> {
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
            penalties: Penalties {
                // Greedy is plain, unless a flag says otherwise.
                repetition: self
                    .repeat_penalty
                    .or(defaults.repetition_penalty.filter(|_| temperature > 0.0))
                    .unwrap_or(1.0),
                frequency: self.frequency_penalty,
                presence: self.presence_penalty,
                last: self.repeat_last_n,
            },
            seed: self.seed.unwrap_or_else(|| RandomState::new().hash_one(())),
        };
        sampling.check()?;
        Ok(sampling)
    }
}
