//! Samples the next token from logits.
//!
//! First biases, penalties and DRY change the logits of some tokens ([`Adjusted`]). Then filters drop
//! candidates, and one of the remaining ones is drawn ([`Draw`]): noise −ln(−ln u) is added to each logit
//! over temperature, and the highest sum wins. That is a draw from their softmax (Gumbel 1954) without a sum
//! over the vocabulary, and it gives the same noise to a candidate whether or not others are dropped. Logits
//! and noise are in f32, because the device computes the same (shaders/adjust.wgsl, shaders/sample/).

mod adjust;
mod chance;
mod draw;
mod probability;
mod sampler;

pub use adjust::{Adjusted, Dry, MAX_BIASES, Penalties};
pub use draw::{Draw, Picked};
pub use probability::{Logprobs, divergence, greedy, logprob};
pub(crate) use probability::{highest, log_total};
pub use sampler::{Pick, Sampler};

use crate::error::{Error, Result, Setting};

/// How to sample the tokens of a generation: temperature, then top-k, top-p, min-p and typical-p, in the
/// order and with the meaning of transformers, then XTC; or temperature and mirostat alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: take the token with the highest logit.
    pub temperature: f32,
    /// Keep the k most probable tokens; 0: all.
    pub top_k: u32,
    /// Keep the fewest tokens, the most probable first, whose probabilities add up to at least p (Holtzman et
    /// al. 2019); 1: all.
    pub top_p: f32,
    /// Keep the tokens that are at least p times as probable as the most probable one (Nguyen et al. 2024);
    /// 0: all.
    pub min_p: f32,
    /// Keep the fewest tokens whose probabilities add up to at least p, those first whose surprise
    /// −ln(probability) is nearest to the expected surprise (Meister et al. 2022); 1: all.
    pub typical_p: f32,
    pub xtc: Xtc,
    pub mirostat: Option<Mirostat>,
    pub seed: u64,
    pub penalties: Penalties,
    pub dry: Dry,
    /// Added to the logits of these tokens before everything else. Minus infinity bans a token.
    pub biases: Vec<(u32, f32)>,
    /// Tokens that are never the first one drawn.
    pub banned_first: Vec<u32>,
    /// Sequences that are never completed: where a text ends with all tokens of one but the last, that one is
    /// not drawn.
    pub banned_sequences: Vec<Vec<u32>>,
}

/// Exclude top choices (p-e-w, text-generation-webui #6335): with a given probability, drops all candidates
/// above a threshold except the least probable of them. As in llama.cpp, no token is exempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xtc {
    /// How often candidates are dropped, from 0 (never) to 1 (always).
    pub probability: f32,
    /// Candidates of at least this probability count as top choices. Above 0.5 there is never more than one,
    /// so nothing is dropped.
    pub threshold: f32,
}

impl Xtc {
    pub const NONE: Self = Self { probability: 0.0, threshold: 0.1 };
}

/// Mirostat, the second algorithm (Basu et al. 2021, "Mirostat"; as llama.cpp has it): keeps the surprise of
/// the drawn tokens near a target by dropping candidates of more than a maximal surprise. It replaces all
/// other filters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirostat {
    /// The target for the surprise, in bits.
    pub target: f32,
    /// The learning rate: how quickly the maximal surprise follows the drawn tokens.
    pub rate: f32,
}

impl Mirostat {
    /// The maximal surprise of the first token, in bits.
    pub fn first(&self) -> f32 {
        2.0 * self.target
    }

    /// The maximal surprise of the next token, in bits, from that of the last token (`most`) and the
    /// probability that the last token had among the candidates that were kept.
    pub fn next(&self, most: f32, probability: f32) -> f32 {
        most - self.rate * (-probability.log2() - self.target)
    }
}

impl Default for Sampling {
    /// Temperature 0.8, top-p 0.95, seed 0.
    fn default() -> Self {
        Self { temperature: 0.8, top_p: 0.95, ..Self::GREEDY }
    }
}

impl Sampling {
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        typical_p: 1.0,
        xtc: Xtc::NONE,
        mirostat: None,
        seed: 0,
        penalties: Penalties::NONE,
        dry: Dry::NONE,
        biases: Vec::new(),
        banned_first: Vec::new(),
        banned_sequences: Vec::new(),
    };

    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// The tokens that are never drawn.
    pub fn banned(&self) -> impl Iterator<Item = u32> {
        let biases = self.biases.iter().filter(|(_, bias)| *bias == f32::NEG_INFINITY).map(|(id, _)| *id);
        biases.chain(self.banned_sequences.iter().filter(|banned| banned.len() == 1).map(|banned| banned[0]))
    }

    /// Whether the sampling of a token depends on the tokens drawn before it, so that the host must know
    /// these first.
    pub fn looks_back(&self) -> bool {
        self.penalties.are_some()
            || self.dry.is_some()
            || self.mirostat.is_some()
            || self.banned_sequences.iter().any(|banned| banned.len() > 1)
    }

    /// The settings for the device. `most` is the maximal surprise in bits, if mirostat is used.
    pub fn draw(&self, most: f32) -> Draw {
        let plain = Draw { temperature: self.temperature, seed: self.seed, ..Draw::GREEDY };
        match self.mirostat {
            Some(_) => Draw { mirostat_min_p: (-most).exp2().max(draw::MIN_SHARE), ..plain },
            None => Draw {
                top_k: self.top_k,
                top_p: self.top_p,
                min_p_margin: draw::min_p_margin(self.temperature, self.min_p),
                typical_p: self.typical_p,
                xtc: self.xtc,
                ..plain
            },
        }
    }

    /// The tokens whose logits change after the sequence `tokens`. Each occurs once. `is_first` says whether
    /// the next token is the first one drawn.
    pub fn adjusted(&self, tokens: &[u32], is_first: bool) -> Vec<Adjusted> {
        adjust::adjusted(self, tokens, is_first)
    }

    /// The tokens that have a bias or a ban.
    pub fn biased(&self) -> impl Iterator<Item = u32> {
        let biased = self.biases.iter().map(|(id, _)| id);
        biased.chain(&self.banned_first).chain(self.banned_sequences.iter().flatten()).copied()
    }

    /// Checks the settings. The error names the first one that is out of range.
    pub fn check(&self) -> Result<()> {
        let Self { temperature, top_p, min_p, typical_p, xtc, penalties, dry, .. } = self;
        let share = 0.0..=1.0;
        let is_part = |value: f32| value > 0.0 && value <= 1.0;
        let (part, from_0_to_1) = ("above 0 and at most 1", "from 0 to 1");
        let within_a_million = "from -1000000 to 1000000";
        for (setting, value, is_right, range) in [
            (Setting::Temperature, *temperature, (0.0..=100.0).contains(temperature), "from 0 to 100"),
            (Setting::TopP, *top_p, is_part(*top_p), part),
            (Setting::MinP, *min_p, share.contains(min_p), from_0_to_1),
            (Setting::TypicalP, *typical_p, is_part(*typical_p), part),
            (Setting::XtcProbability, xtc.probability, share.contains(&xtc.probability), from_0_to_1),
            (Setting::XtcThreshold, xtc.threshold, share.contains(&xtc.threshold), from_0_to_1),
            (
                Setting::RepetitionPenalty,
                penalties.repetition,
                (1e-6..=1e6).contains(&penalties.repetition),
                "from 0.000001 to 1000000",
            ),
            (
                Setting::FrequencyPenalty,
                penalties.frequency,
                penalties.frequency.abs() <= 1e6,
                within_a_million,
            ),
            (Setting::PresencePenalty, penalties.presence, penalties.presence.abs() <= 1e6, within_a_million),
            (
                Setting::DryMultiplier,
                dry.multiplier,
                (0.0..=1e6).contains(&dry.multiplier),
                "from 0 to 1000000",
            ),
            (Setting::DryBase, dry.base, (1.0..=1e6).contains(&dry.base), "from 1 to 1000000"),
        ] {
            check(setting, value, is_right && value.is_finite(), range)?;
        }
        if let Some(Mirostat { target, rate }) = self.mirostat {
            for (setting, value) in [(Setting::MirostatTarget, target), (Setting::MirostatRate, rate)] {
                check(setting, value, value > 0.0 && value <= 1e6, "above zero and at most 1000000")?;
            }
        }
        for (token, bias) in &self.biases {
            check(Setting::Bias(*token), *bias, !bias.is_nan(), "a number")?;
        }
        let biases = self.biases.len() + self.banned_first.len() + self.banned_sequences.len();
        if biases > MAX_BIASES {
            return Err(Error::request(format!(
                "there are {biases} biases and bans, but at most {MAX_BIASES} are possible"
            )));
        }
        Ok(())
    }
}

fn check(setting: Setting, value: f32, is_right: bool, range: &str) -> Result<()> {
    match is_right {
        true => Ok(()),
        false => Err(Error::setting(setting, format!("is {value}, but it must be {range}"))),
    }
}

/// The id of a drawn token if no logit is a number.
pub const NO_ID: u32 = u32::MAX;

/// A margin below the highest logit that includes all others. It is finite, so that sums with it are numbers.
const NO_CUT: f32 = -1e30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let plain = Sampling::GREEDY;
        let penalties = Penalties::NONE;
        for (sampling, setting) in [
            (Sampling { temperature: -1.0, ..plain.clone() }, Some(Setting::Temperature)),
            (Sampling { temperature: f32::NAN, ..plain.clone() }, Some(Setting::Temperature)),
            (Sampling { temperature: f32::INFINITY, ..plain.clone() }, Some(Setting::Temperature)),
            (Sampling { top_p: 0.0, ..plain.clone() }, Some(Setting::TopP)),
            (Sampling { min_p: 1.5, ..plain.clone() }, Some(Setting::MinP)),
            (Sampling { typical_p: 0.0, ..plain.clone() }, Some(Setting::TypicalP)),
            (
                Sampling { xtc: Xtc { probability: 2.0, ..Xtc::NONE }, ..plain.clone() },
                Some(Setting::XtcProbability),
            ),
            (
                Sampling { xtc: Xtc { threshold: -1.0, ..Xtc::NONE }, ..plain.clone() },
                Some(Setting::XtcThreshold),
            ),
            (
                Sampling { penalties: Penalties { repetition: 0.0, ..penalties }, ..plain.clone() },
                Some(Setting::RepetitionPenalty),
            ),
            (
                Sampling { penalties: Penalties { presence: f32::NAN, ..penalties }, ..plain.clone() },
                Some(Setting::PresencePenalty),
            ),
            (
                Sampling { dry: Dry { multiplier: -1.0, ..Dry::NONE }, ..plain.clone() },
                Some(Setting::DryMultiplier),
            ),
            (Sampling { dry: Dry { base: 0.5, ..Dry::NONE }, ..plain.clone() }, Some(Setting::DryBase)),
            (
                Sampling { mirostat: Some(Mirostat { target: 0.0, rate: 0.1 }), ..plain.clone() },
                Some(Setting::MirostatTarget),
            ),
            (Sampling { biases: vec![(7, f32::NAN)], ..plain.clone() }, Some(Setting::Bias(7))),
            (Sampling { biases: vec![(7, 1.0); MAX_BIASES + 1], ..plain.clone() }, None),
            (Sampling { banned_sequences: vec![vec![7, 8]; MAX_BIASES + 1], ..plain.clone() }, None),
        ] {
            let error = sampling.check().expect_err("out of range");
            assert_eq!(error.about(), setting, "{error}");
        }
        assert!(plain.check().is_ok() && Sampling::default().check().is_ok());
    }

    /// The maximal surprise falls after a token of more surprise than the target, and rises after one of
    /// less.
    #[test]
    fn mirostat_follows_what_was_drawn() {
        let mirostat = Mirostat { target: 3.0, rate: 0.5 };
        assert_eq!(mirostat.first(), 6.0);
        assert_eq!(mirostat.next(6.0, 1.0 / 32.0), 5.0);
        assert_eq!(mirostat.next(6.0, 0.5), 7.0);
    }
}
