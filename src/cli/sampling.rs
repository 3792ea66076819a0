//! The flags that control sampling.

use crate::{
    error::{Error, Result},
    model::Model,
    sampling::{Dry, Mirostat, Penalties, Sampling, Xtc},
    tokenizer::Tokenizer,
};
use clap::{Args, builder::RangedI64ValueParser};
use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};

/// How tokens are picked; what is absent comes from generation_config.json, or else is the default said here.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
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
    /// Consider only the fewest tokens that reach P, those first that are about as surprising as is to be
    /// expected
    #[arg(long, value_name = "P", visible_alias = "typical-p", allow_negative_numbers = true)]
    typical: Option<f32>,
    /// How often, of one, to leave out the likely tokens but the least likely of them (XTC)
    #[arg(long, value_name = "P", default_value_t = Xtc::NONE.probability, allow_negative_numbers = true)]
    xtc_probability: f32,
    /// From which probability on XTC calls a token likely
    #[arg(long, value_name = "P", default_value_t = Xtc::NONE.threshold, allow_negative_numbers = true)]
    xtc_threshold: f32,
    /// 2: keep the surprise of what is drawn near a target, by mirostat 2, in place of all filters above; 0:
    /// don't
    #[arg(long, value_name = "VERSION", default_value = "0", value_parser = ["0", "2"])]
    mirostat: String,
    /// The surprise that mirostat aims at, in bits
    #[arg(long, value_name = "BITS", default_value_t = 5.0, allow_negative_numbers = true)]
    mirostat_ent: f32,
    /// How quickly mirostat follows what was drawn
    #[arg(long, value_name = "RATE", default_value_t = 0.1, allow_negative_numbers = true)]
    mirostat_lr: f32,
    /// Make tokens that were there before less likely: divides their logits; 1: does not
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// Take this off a token's logit for each time that it was there
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Take this off a token's logit if it was there
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Penalties are for the last N tokens, prompt included; -1: for all; 0: for none
    #[arg(long, value_name = "N", default_value_t = -1, value_parser = window(),
        allow_negative_numbers = true)]
    repeat_last_n: i64,
    /// How much a token costs that would go on with a repetition (DRY); 0: nothing
    #[arg(long, value_name = "X", default_value_t = Dry::NONE.multiplier, allow_negative_numbers = true)]
    dry_multiplier: f32,
    /// How many times more for each token that the repetition is longer
    #[arg(long, value_name = "X", default_value_t = Dry::NONE.base, allow_negative_numbers = true)]
    dry_base: f32,
    /// How long a repetition must be to cost something
    #[arg(long, value_name = "N", default_value_t = Dry::NONE.allowed)]
    dry_allowed_length: u32,
    /// DRY looks for repetitions among the last N tokens; -1: among all; 0: nowhere
    #[arg(long, value_name = "N", default_value_t = -1, value_parser = window(),
        allow_negative_numbers = true)]
    dry_penalty_last_n: i64,
    /// No repetition goes on over a token with this text, or none does where it is "none"; may be given
    /// again. Default: the end of a line, a colon, a quotation mark, an asterisk
    #[arg(long, value_name = "TEXT")]
    dry_sequence_breaker: Vec<String>,
    /// Add this to a token's logit: ID=BIAS, as in 15=-1.5; may be given again
    #[arg(long, value_name = "ID=BIAS", value_parser = bias, allow_hyphen_values = true)]
    logit_bias: Vec<(u32, f32)>,
    /// Tokens that are never drawn, by their ids: 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    ban: Vec<u32>,
    /// Never end the text before the most tokens are generated
    #[arg(long)]
    ignore_eos: bool,
    /// What chance starts from: the same seed gives the same text on the same device. Default: random
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Parses how many tokens a window holds, as in llama.cpp: -1 means all.
fn window() -> RangedI64ValueParser {
    clap::value_parser!(i64).range(-1..=i64::from(u32::MAX))
}

/// Parses a token's bias: `15=-1.5`, or llama.cpp's form, `15-1.5`.
fn bias(text: &str) -> Result<(u32, f32)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (id, bias) = text.split_at(end);
    match (id.parse(), bias.strip_prefix('=').unwrap_or(bias).parse()) {
        (Ok(id), Ok(bias)) => Ok((id, bias)),
        _ => Err(Error::request("a token's id and what is added to its logit belong there, as in 15=-1.5")),
    }
}

impl SamplingArgs {
    pub fn sampling(&self, model: &Model, tokenizer: &Tokenizer) -> Result<Sampling> {
        let defaults = model.defaults.sampling();
        let temperature = if self.greedy { 0.0 } else { self.temperature.unwrap_or(defaults.temperature) };
        // A bias that a flag sets beats a ban that the file recommends.
        let biased = |id: &u32| self.logit_bias.iter().any(|(token, _)| token == id);
        let recommended = defaults.biases.iter().filter(|(id, _)| !biased(id));
        let banned = self.ban.iter().chain(model.eos.iter().filter(|_| self.ignore_eos));
        let sampling = Sampling {
            temperature,
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            typical_p: self.typical.unwrap_or(defaults.typical_p),
            xtc: Xtc { probability: self.xtc_probability, threshold: self.xtc_threshold },
            mirostat: (self.mirostat == "2")
                .then_some(Mirostat { target: self.mirostat_ent, rate: self.mirostat_lr }),
            penalties: match self.repeat_last_n {
                0 => Penalties::NONE,
                last => Penalties {
                    // Greedy decoding has no penalty unless a flag sets one.
                    repetition: match self.repeat_penalty {
                        None if temperature == 0.0 => 1.0,
                        penalty => penalty.unwrap_or(defaults.penalties.repetition),
                    },
                    frequency: self.frequency_penalty,
                    presence: self.presence_penalty,
                    last: last.max(0) as u32,
                },
            },
            dry: Dry {
                multiplier: if self.dry_penalty_last_n == 0 { 0.0 } else { self.dry_multiplier },
                base: self.dry_base,
                allowed: self.dry_allowed_length,
                last: self.dry_penalty_last_n.max(0) as u32,
                breakers: self.breakers(tokenizer),
            },
            biases: self
                .logit_bias
                .iter()
                .chain(recommended)
                .copied()
                .chain(banned.map(|id| (*id, f32::NEG_INFINITY)))
                .collect(),
            banned_first: defaults.banned_first,
            banned_sequences: defaults.banned_sequences,
            seed: self.seed.unwrap_or_else(|| RandomState::new().hash_one(())),
        };
        sampling.check()?;
        Ok(sampling)
    }

    /// The tokens that interrupt a repetition for DRY.
    fn breakers(&self, tokenizer: &Tokenizer) -> BTreeSet<u32> {
        if self.dry_multiplier == 0.0 {
            return BTreeSet::new();
        }
        let given: Vec<&str> = self.dry_sequence_breaker.iter().map(String::as_str).collect();
        match given.as_slice() {
            [] => tokenizer.with_any(&Dry::BREAKERS),
            ["none"] => BTreeSet::new(),
            texts => tokenizer.with_any(texts),
        }
    }
}
