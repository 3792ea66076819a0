//! Picking the next token from logits.
//!
//! First the logits of some tokens are adjusted, by biases, penalties and DRY ([`Adjusted`]). Then filters
//! drop candidates, and chance draws among those that are left ([`Draw`]): adding noise −ln(−ln u) to logits
//! over temperature and taking the highest is a draw from their softmax (Gumbel 1954), with no sum over the
//! vocabulary, and a filter that drops some candidates changes nothing for the others. In f32 throughout, for
//! the device does the same (shaders/adjust.wgsl, shaders/sample/).

mod adjust;
mod chance;
mod draw;
mod probability;
mod sampler;

pub use adjust::{Adjusted, Dry, MAX_BIASES, Penalties};
pub use draw::{Draw, Picked};
pub(crate) use probability::log_total;
pub use probability::{divergence, greedy, logprob};
pub use sampler::{Pick, Sampler};

use crate::error::{Error, Result, Setting};

/// How a generation's tokens are picked: temperature first, then top-k, top-p, min-p and typical, in the
/// order and meaning that transformers gives them, then XTC; or temperature and mirostat alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Zero: the highest logit.
    pub temperature: f32,
    /// Keep the k most probable; zero: all.
    pub top_k: u32,
    /// Keep the fewest whose probabilities reach p (Holtzman et al. 2019).
    pub top_p: f32,
    /// Keep those at least p times as probable as the best (Nguyen et al. 2024).
    pub min_p: f32,
    /// Keep the fewest that reach p of those whose surprise is nearest to the expected (Meister et al. 2022);
    /// 1: all.
    pub typical_p: f32,
    pub xtc: Xtc,
    pub mirostat: Option<Mirostat>,
    pub seed: u64,
    pub penalties: Penalties,
    pub dry: Dry,
    /// Added to the logits of these tokens, before all else; minus infinity bans one.
    pub biases: Vec<(u32, f32)>,
}

/// Exclude top choices (p-e-w, text-generation-webui #6335; as llama.cpp has it, for all tokens alike): now
/// and then drop all of the likely candidates but the least likely of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xtc {
    /// How often, of one.
    pub probability: f32,
    /// From which probability on a candidate is likely; above one half: never are two.
    pub threshold: f32,
}

impl Xtc {
    pub const NONE: Self = Self { probability: 0.0, threshold: 0.1 };
}

/// Keeps the surprise of what is drawn near a target by dropping what would surprise too much (Basu et al.
/// 2021, "Mirostat", its second algorithm, as llama.cpp has it). It takes the place of all other filters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirostat {
    /// The surprise aimed at, in bits.
    pub target: f32,
    /// How quickly the most that is allowed follows what was drawn.
    pub rate: f32,
}

impl Mirostat {
    /// The most surprise that is allowed a first token, in bits.
    pub fn first(&self) -> f32 {
        2.0 * self.target
    }

    /// The most that is allowed after a token of this probability among those that were left.
    pub fn next(&self, most: f32, probability: f32) -> f32 {
        most - self.rate * (-probability.log2() - self.target)
    }
}

impl Default for Sampling {
    /// Temperature 0.8 and top-p 0.95, by the seed 0.
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
    };

    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// The tokens that are never drawn.
    pub fn banned(&self) -> impl Iterator<Item = u32> {
        self.biases.iter().filter(|(_, bias)| *bias == f32::NEG_INFINITY).map(|(id, _)| *id)
    }

    /// Whether what was drawn before changes how the next is drawn, so that the host must know it first.
    pub fn looks_back(&self) -> bool {
        self.penalties.are_some() || self.dry.is_some() || self.mirostat.is_some()
    }

    /// What the device is told of it for a token that may surprise by `most` bits, where mirostat says so.
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

    /// The tokens whose logits change after these, each once.
    pub fn adjusted(&self, tokens: &[u32]) -> Vec<Adjusted> {
        adjust::adjusted(&self.biases, &self.penalties, &self.dry, tokens)
    }

    /// An error where a setting makes no sense, which names it.
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
            (Setting::DryMultiplier, dry.multiplier, dry.multiplier >= 0.0, "zero or above"),
            (Setting::DryBase, dry.base, dry.base >= 1.0, "1 or above"),
        ] {
            check(setting, value, is_right && value.is_finite(), range)?;
        }
        if let Some(Mirostat { target, rate }) = self.mirostat {
            for (setting, value) in [(Setting::MirostatTarget, target), (Setting::MirostatRate, rate)] {
                check(setting, value, value > 0.0 && value.is_finite(), "above zero")?;
            }
        }
        for (token, bias) in &self.biases {
            check(Setting::Bias(*token), *bias, !bias.is_nan(), "a number")?;
        }
        if self.biases.len() > MAX_BIASES {
            return Err(Error::request(format!(
                "there are {} biases and banned tokens, but at most {MAX_BIASES} are possible",
                self.biases.len()
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

/// What stands in place of an id where no logit is a number.
pub const NO_ID: u32 = u32::MAX;

/// Lower than any logit is below the highest; what it is added to is still a number.
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
        ] {
            let error = sampling.check().expect_err("out of range");
            assert_eq!(error.about(), setting, "{error}");
        }
        assert!(plain.check().is_ok() && Sampling::default().check().is_ok());
    }

    /// After a token that surprised more than was aimed at, less is allowed, and the other way round.
    #[test]
    fn mirostat_follows_what_was_drawn() {
        let mirostat = Mirostat { target: 3.0, rate: 0.5 };
        assert_eq!(mirostat.first(), 6.0);
        assert_eq!(mirostat.next(6.0, 1.0 / 32.0), 5.0);
        assert_eq!(mirostat.next(6.0, 0.5), 7.0);
    }
}
