//! Picking the next token from logits.
//!
//! Chance comes from a counter-based generator: which number a candidate draws follows from the seed, its position
//! and its id alone. Adding noise −ln(−ln u) to logits over temperature and taking the highest is a draw from
//! their softmax (Gumbel 1954), with no sum over the vocabulary, and a filter that drops some candidates changes
//! nothing for the others. In f32 throughout, for the device does the same (shaders/sample/).

use crate::{
    error::{Error, Result},
    simd::exp,
};
use std::collections::BTreeMap;

/// How the next token is picked: temperature first, then top-k, top-p, min-p, in the order and meaning that
/// transformers gives them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Zero: the highest logit.
    pub temperature: f32,
    /// Keep the k most probable; zero: all.
    pub top_k: u32,
    /// Keep the fewest whose probabilities reach p.
    pub top_p: f32,
    /// Keep those at least p times as probable as the best.
    pub min_p: f32,
    pub seed: u64,
    pub penalties: Penalties,
}

/// What makes tokens less likely that were there before, prompt included; before all else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalties {
    /// Divides logits above zero, and multiplies those below (Keskar et al. 2019, "CTRL"); 1: none.
    pub repetition: f32,
    /// Taken off for each time that the token was there, and once if it was (OpenAI's API); 0: none.
    pub frequency: f32,
    pub presence: f32,
    /// Of how many of the last tokens; 0: of all.
    pub last: u32,
}

/// A token, and how often it was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub token: u32,
    pub count: u32,
}

impl Penalties {
    pub const NONE: Self = Self { repetition: 1.0, frequency: 0.0, presence: 0.0, last: 0 };

    /// Whether they change anything.
    pub fn are_some(&self) -> bool {
        (self.repetition, self.frequency, self.presence) != (1.0, 0.0, 0.0)
    }

    /// What becomes of the logit of a token that was there so often.
    pub fn apply(&self, logit: f32, count: u32) -> f32 {
        let logit = if logit > 0.0 { logit / self.repetition } else { logit * self.repetition };
        logit - (self.frequency * count as f32 + self.presence)
    }

    /// The tokens that they are for, of those so far.
    pub fn seen(&self, tokens: &[u32]) -> Vec<Seen> {
        if !self.are_some() {
            return Vec::new();
        }
        let last = if self.last == 0 { tokens.len() } else { tokens.len().min(self.last as usize) };
        let mut counts = BTreeMap::new();
        for token in &tokens[tokens.len() - last..] {
            *counts.entry(*token).or_insert(0) += 1;
        }
        counts.into_iter().map(|(token, count)| Seen { token, count }).collect()
    }
}

impl Sampling {
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, penalties: Penalties::NONE };

    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// An error where a setting makes no sense, naming its flag.
    pub fn check(&self) -> Result<()> {
        let wrong = |flag: &str, value: f32, range: &str| {
            Err(Error::request(format!("{flag} is {value}, but it must be {range}")))
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("--temperature", self.temperature, "zero or above");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("--top-p", self.top_p, "above 0 and at most 1");
        }
        if !(self.min_p >= 0.0 && self.min_p <= 1.0) {
            return wrong("--min-p", self.min_p, "from 0 to 1");
        }
        let Penalties { repetition, frequency, presence, .. } = self.penalties;
        if !(repetition > 0.0 && repetition.is_finite()) {
            return wrong("--repeat-penalty", repetition, "above zero");
        }
        for (flag, value) in [("--frequency-penalty", frequency), ("--presence-penalty", presence)] {
            if !value.is_finite() {
                return wrong(flag, value, "a number");
            }
        }
        Ok(())
    }

    /// How much lower than the highest a logit may be, by min-p.
    pub fn least(&self) -> f32 {
        if self.min_p > 0.0 { self.temperature * self.min_p.ln() } else { NO_CUT }
    }

    /// The id of the token at `position`; [`NO_ID`] where no logit is a number.
    ///
    /// Each filter is a cut: what is as probable as the last that is kept is kept too, as transformers' top-k has it.
    pub fn pick(&self, logits: &[f32], position: u32) -> u32 {
        if self.is_greedy() {
            return greedy(logits);
        }
        let mut top = f32::MIN;
        for logit in logits {
            top = if *logit > top { *logit } else { top };
        }
        let mut cut = f32::MIN.max(top + self.least());
        let k = self.top_k as usize;
        if k > 0 && k < logits.len() {
            cut = cut.max(highest_first(logits, f32::MIN, k).last().map_or(f32::MIN, |(_, logit)| *logit));
        }
        if self.top_p < 1.0 {
            cut = self.nucleus(logits, top, cut);
        }
        let (mut best, mut highest) = (NO_ID, f32::MIN);
        for (logit, id) in logits.iter().zip(0..) {
            if *logit >= cut {
                let drawn = (logit - top) / self.temperature - ln(wait(self.seed, position, id));
                if drawn > highest || best == NO_ID {
                    (best, highest) = (id, drawn);
                }
            }
        }
        best
    }

    /// The highest cut above which the probabilities reach p of those above `cut`.
    fn nucleus(&self, logits: &[f32], top: f32, cut: f32) -> f32 {
        let weight = |logit: f32| f64::from(exp((logit - top) / self.temperature));
        let total: f64 = logits.iter().filter(|logit| **logit >= cut).map(|logit| weight(*logit)).sum();
        let enough = f64::from(self.top_p) * total;
        // Mostly a few reach it: only as many are sorted as it takes.
        let mut count = 64;
        loop {
            let best = highest_first(logits, cut, count);
            let mut sum = 0.0;
            for (_, logit) in &best {
                sum += weight(*logit);
                if sum >= enough {
                    return *logit;
                }
            }
            if best.len() < count {
                return cut;
            }
            count *= 8;
        }
    }
}

/// The highest logits that are at least `cut`, with their ids, as many as `count`, the highest first.
fn highest_first(logits: &[f32], cut: f32, count: usize) -> Vec<(u32, f32)> {
    let mut kept: Vec<(u32, f32)> =
        (0..).zip(logits).filter(|(_, logit)| **logit >= cut).map(|(id, logit)| (id, *logit)).collect();
    let by_logit = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < kept.len() {
        kept.select_nth_unstable_by(count, by_logit);
        kept.truncate(count);
    }
    kept.sort_unstable_by(by_logit);
    kept
}

/// Lower than any logit is below the highest; what it is added to is still a number.
const NO_CUT: f32 = -1e30;

/// What stands in place of an id where no logit is a number.
pub const NO_ID: u32 = u32::MAX;

/// The id of the highest logit, the lowest of those that share it; [`NO_ID`] where none is a number.
pub fn greedy(logits: &[f32]) -> u32 {
    let (mut best, mut highest) = (NO_ID, f32::NEG_INFINITY);
    for (logit, id) in logits.iter().zip(0..) {
        if *logit > highest {
            (best, highest) = (id, *logit);
        }
    }
    best
}

/// How far a prediction is from another, in nats: Σ p ln(p / q) of their softmaxes (Kullback and Leibler 1951).
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p_total, q_total) = (log_total(p), log_total(q));
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p) - p_total, f64::from(*q) - q_total);
        p.exp() * (p - q)
    };
    p.iter().zip(q).map(term).sum()
}

/// `ln softmax(logits)[id]`
pub fn logprob(logits: &[f32], id: u32) -> f64 {
    f64::from(logits[id as usize]) - log_total(logits)
}

/// ln Σ exp(logits)
pub(crate) fn log_total(logits: &[f32]) -> f64 {
    let top = logits.iter().copied().fold(f32::MIN, f32::max);
    let total: f64 = logits.iter().map(|l| f64::from(l - top).exp()).sum();
    f64::from(top) + total.ln()
}

/// How long a candidate waits for a draw, exponentially distributed: of those that wait, divided by their weights, the
/// first is drawn. Computed as shaders/sample/random.wgsl has it.
fn wait(seed: u64, position: u32, id: u32) -> f32 {
    let [word, ..] = philox([id, position, 0, 0], [seed as u32, (seed >> 32) as u32]);
    -ln(((word >> 9) as f32 + 0.5) / 8_388_608.0)
}

/// The natural logarithm of a normal number above zero (Cephes, Moshier 1984).
fn ln(v: f32) -> f32 {
    // m from the root of a half to the root of two, v = m 2^e
    let shifted = v.to_bits().wrapping_sub(0x3f35_04f3);
    let e = (shifted as i32 >> 23) as f32;
    let f = f32::from_bits((shifted & 0x007f_ffff) + 0x3f35_04f3) - 1.0;
    let z = f * f;
    let mut p = 7.037_683_6e-2;
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * f + c;
    }
    f + (f * z * p - 2.121_944_4e-4 * e - 0.5 * z) + 0.693_359_4 * e
}

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [a, b] = [0xD251_1F53_u64 * u64::from(counter[0]), 0xCD9E_8D57_u64 * u64::from(counter[2])];
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that Random123 publishes for philox4x32-10.
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn ln_is_right() {
        for i in 1..200_000 {
            for v in [i as f32 * 1e-5, 1.0 - i as f32 * 5e-8, i as f32] {
                let (got, exact) = (f64::from(ln(v)), f64::from(v).ln());
                assert!((got - exact).abs() <= exact.abs() * 3e-7, "{v}: {got} for {exact}");
            }
        }
    }

    /// How often each id is picked over many positions, against the exact probabilities (chi-squared, 99.9 %).
    fn check_distribution(sampling: Sampling, logits: &[f32], expected: &[f64]) {
        let draws = 20_000;
        let mut counts = vec![0.0; logits.len()];
        for position in 0..draws {
            counts[sampling.pick(logits, position) as usize] += 1.0;
        }
        let mut chi = 0.0;
        for (count, probability) in counts.iter().zip(expected) {
            let wanted = probability * f64::from(draws);
            match wanted > 0.0 {
                true => chi += (count - wanted) * (count - wanted) / wanted,
                false => assert_eq!(*count, 0.0, "{sampling:?} picked what it should have dropped"),
            }
        }
        assert!(chi < 24.3, "{sampling:?}: chi-squared {chi} of {counts:?}"); // 7 degrees of freedom
    }

    #[test]
    fn draws_follow_the_probabilities_that_are_left() {
        let logits = [1.0, -0.5, 2.0, 0.0, 1.5, -3.0, 0.7, 1.2];
        let sampling = Sampling { temperature: 1.0, seed: 7, ..Sampling::GREEDY };
        let softmax = |temperature: f32, keep: &[usize]| {
            let weights: Vec<f64> = (0..logits.len())
                .map(|i| if keep.contains(&i) { f64::from(logits[i] / temperature).exp() } else { 0.0 })
                .collect();
            let total: f64 = weights.iter().sum();
            weights.iter().map(|w| w / total).collect::<Vec<_>>()
        };
        let all = [0, 1, 2, 3, 4, 5, 6, 7];
        check_distribution(sampling, &logits, &softmax(1.0, &all));
        check_distribution(Sampling { temperature: 0.6, ..sampling }, &logits, &softmax(0.6, &all));
        check_distribution(Sampling { top_k: 3, ..sampling }, &logits, &softmax(1.0, &[2, 4, 7]));
        // Probabilities, best first: 0.361 0.219 0.162 0.133 …
        check_distribution(Sampling { top_p: 0.6, ..sampling }, &logits, &softmax(1.0, &[2, 4, 7]));
        check_distribution(Sampling { top_p: 0.01, ..sampling }, &logits, &softmax(1.0, &[2]));
        // exp(-0.5) = 0.61, exp(-0.8) = 0.45, exp(-1) = 0.37
        check_distribution(Sampling { min_p: 0.4, ..sampling }, &logits, &softmax(1.0, &[2, 4, 7]));
        check_distribution(Sampling { min_p: 1.0, ..sampling }, &logits, &softmax(1.0, &[2]));
    }

    /// Of the last four, a token twice and another once; what is not among them is left alone.
    #[test]
    fn penalties_are_for_what_was_there() {
        let penalties = Penalties { repetition: 2.0, frequency: 0.25, presence: 0.5, last: 4 };
        let seen = penalties.seen(&[9, 9, 9, 5, 3, 5, 8]);
        let counts: Vec<_> = seen.iter().map(|seen| (seen.token, seen.count)).collect();
        assert_eq!(counts, [(3, 1), (5, 2), (8, 1)]);
        assert_eq!(penalties.apply(3.0, 2), 3.0 / 2.0 - 2.0 * 0.25 - 0.5);
        assert_eq!(penalties.apply(-3.0, 1), -3.0 * 2.0 - 0.25 - 0.5);
        assert_eq!(Penalties { last: 0, ..penalties }.seen(&[9, 9, 5]).len(), 2);
        assert!(Penalties { last: 4, ..Penalties::NONE }.seen(&[9, 9, 5]).is_empty());
    }

    #[test]
    fn settings_out_of_range_are_refused_by_flag() {
        let wrong = |sampling: Sampling| sampling.check().expect_err("out of range").to_string();
        assert!(wrong(Sampling { temperature: -1.0, ..Sampling::GREEDY }).contains("--temperature"));
        assert!(wrong(Sampling { temperature: f32::NAN, ..Sampling::GREEDY }).contains("--temperature"));
        assert!(wrong(Sampling { top_p: 0.0, ..Sampling::GREEDY }).contains("--top-p"));
        assert!(wrong(Sampling { min_p: 1.5, ..Sampling::GREEDY }).contains("--min-p"));
        let penalties = Penalties { repetition: 0.0, ..Penalties::NONE };
        assert!(wrong(Sampling { penalties, ..Sampling::GREEDY }).contains("--repeat-penalty"));
        let penalties = Penalties { presence: f32::NAN, ..Penalties::NONE };
        assert!(wrong(Sampling { penalties, ..Sampling::GREEDY }).contains("--presence-penalty"));
    }
}
