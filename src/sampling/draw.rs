//! Draws a token from the candidates that the filters keep: the definition of shaders/sample/.

use super::{
    NO_CUT, NO_ID, Xtc,
    chance::{coin, ln, wait},
    greedy,
};
use crate::simd::exp;

/// How to sample a sequence's next token, as a step holds it: [`super::Sampling`] reduced to numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// 0: take the token with the highest logit.
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    /// The lowest logit that min-p keeps, relative to the highest logit: at most 0.
    pub min_p_margin: f32,
    pub typical_p: f32,
    /// The lowest probability that mirostat keeps; 0: no mirostat.
    pub mirostat_min_p: f32,
    pub xtc: Xtc,
    pub seed: u64,
}

/// A token that was drawn. With mirostat, also its probability among the candidates that the filters kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picked {
    /// [`NO_ID`] if no logit is a number.
    pub id: u32,
    pub probability: f32,
}

impl Picked {
    /// The token picked for each sequence, from the words of the ids buffer: ids, then as many probabilities.
    pub fn all(words: &[u32]) -> Vec<Self> {
        let (ids, probabilities) = words.split_at(words.len() / 2);
        let both = ids.iter().zip(probabilities);
        both.map(|(id, probability)| Self { id: *id, probability: f32::from_bits(*probability) }).collect()
    }
}

/// Which candidates the filters keep: those that fulfil all the conditions.
#[derive(Clone, Copy)]
struct Kept {
    /// The logit is at least this.
    lowest: f32,
    /// The logit is at most this.
    highest: f32,
    /// The logit's [`nearness`] to `center` is at least `closeness` (for typical-p).
    center: f32,
    closeness: f32,
}

impl Kept {
    fn has(&self, logit: f32) -> bool {
        logit >= self.lowest && logit <= self.highest && nearness(logit, self.center) >= self.closeness
    }
}

/// The negated distance of a logit from `center`, so that a higher number is nearer.
fn nearness(logit: f32, center: f32) -> f32 {
    -(logit - center).abs()
}

/// The logit, relative to the highest, of a token that is `min_p` times as probable as the most probable one;
/// without min-p (0), [`NO_CUT`].
pub(super) fn min_p_margin(temperature: f32, min_p: f32) -> f32 {
    if min_p > 0.0 { temperature * min_p.ln() } else { NO_CUT }
}

/// Lower bound for a share of the total weight, so that its logarithm is finite.
pub(super) const MIN_SHARE: f32 = 1e-30;

/// An output's logits, and their weights exp((logit − top) / temperature).
struct Candidates<'a> {
    logits: &'a [f32],
    top: f32,
    temperature: f32,
}

impl Candidates<'_> {
    fn weight(&self, logit: f32) -> f64 {
        f64::from(exp((logit - self.top) / self.temperature))
    }

    fn kept(&self, kept: Kept) -> impl Iterator<Item = (u32, f32)> {
        (0..).zip(self.logits.iter().copied()).filter(move |(_, logit)| kept.has(*logit))
    }

    /// The total weight of the candidates that are kept.
    fn total(&self, kept: Kept) -> f64 {
        self.kept(kept).map(|(_, logit)| self.weight(logit)).sum()
    }

    /// The logit whose weight is `share` of the weight `total`.
    fn logit_of(&self, share: f32, total: f64) -> f32 {
        self.top + self.temperature * ln((share * total as f32).max(MIN_SHARE))
    }

    /// The top-p cut: the highest logit such that the candidates of at least that logit have the share `p` of
    /// the kept weight.
    fn nucleus(&self, kept: Kept, p: f32) -> f32 {
        let enough = f64::from(p) * self.total(kept);
        // Mostly few candidates suffice, so only the best are sorted: 64 first, then eight times as many
        // until they suffice.
        let mut count = 64;
        loop {
            let best = highest_first(self.logits, kept.lowest, count);
            let mut sum = 0.0;
            for (_, logit) in &best {
                sum += self.weight(*logit);
                if sum >= enough {
                    return *logit;
                }
            }
            if best.len() < count {
                return kept.lowest;
            }
            count *= 8;
        }
    }

    /// The typical-p filter: keeps the candidates whose surprise is nearest to the expected surprise (the
    /// entropy), as few as have the share `p` of the kept weight.
    ///
    /// A candidate's surprise is −ln p = ln total − x, where x is the logit over the temperature. Its
    /// distance from the mean surprise is therefore the distance of x from the mean x.
    fn typical(&self, kept: Kept, p: f32) -> Kept {
        let total = self.total(kept);
        let x = |logit: f32| f64::from((logit - self.top) / self.temperature);
        // A logit with weight 0 may be infinitely far below the top: skip it, or the mean is NaN.
        let weighty = self.kept(kept).filter(|(_, logit)| self.weight(*logit) > 0.0);
        let mean = weighty.map(|(_, logit)| self.weight(logit) * x(logit)).sum::<f64>() / total;
        let center = self.top + self.temperature * mean as f32;
        let mut nearest: Vec<(f32, f64)> =
            self.kept(kept).map(|(_, logit)| (nearness(logit, center), self.weight(logit))).collect();
        nearest.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let (mut sum, enough) = (0.0, f64::from(p) * total);
        let last = nearest.iter().find(|(_, weight)| {
            sum += weight;
            sum >= enough
        });
        let closeness = last.or(nearest.last()).map_or(f32::MIN, |(nearness, _)| *nearness);
        Kept { center, closeness, ..kept }
    }

    /// The XTC filter: removes all candidates with at least the probability `threshold` except the least
    /// probable of them. Does nothing if there are fewer than two.
    fn without_top(&self, kept: Kept, threshold: f32) -> Kept {
        let line = self.logit_of(threshold, self.total(kept));
        let likely = || self.kept(kept).map(|(_, logit)| logit).filter(|logit| *logit >= line);
        match likely().count() {
            0 | 1 => kept,
            _ => Kept { highest: likely().fold(f32::MAX, f32::min), ..kept },
        }
    }
}

impl Draw {
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p_margin: NO_CUT,
        typical_p: 1.0,
        mirostat_min_p: 0.0,
        xtc: Xtc::NONE,
        seed: 0,
    };

    /// Draws the token at `position` from the logits (`[vocab]`) of the position before.
    ///
    /// Each filter is a cut on the logit or on its nearness to a logit. Candidates that tie with the last one
    /// kept are kept too, as in transformers' top-k.
    pub fn pick(&self, logits: &[f32], position: u32) -> Picked {
        if self.temperature == 0.0 {
            return Picked { id: greedy(logits), probability: 1.0 };
        }
        let mut top = f32::MIN;
        for logit in logits {
            top = if *logit > top { *logit } else { top };
        }
        let candidates = Candidates { logits, top, temperature: self.temperature };
        let mut kept = Kept { lowest: f32::MIN, highest: f32::MAX, center: top, closeness: f32::MIN };
        let k = self.top_k as usize;
        if k > 0 && k < logits.len() {
            kept.lowest = highest_first(logits, f32::MIN, k).last().map_or(f32::MIN, |(_, logit)| *logit);
        }
        if self.top_p < 1.0 {
            kept.lowest = candidates.nucleus(kept, self.top_p);
        }
        kept.lowest = kept.lowest.max(top + self.min_p_margin);
        if self.typical_p < 1.0 {
            kept = candidates.typical(kept, self.typical_p);
        }
        if self.xtc.probability > 0.0 && coin(self.seed, position) < self.xtc.probability {
            kept = candidates.without_top(kept, self.xtc.threshold);
        }
        if self.mirostat_min_p > 0.0 {
            // The most probable candidate always stays.
            kept.lowest = candidates.logit_of(self.mirostat_min_p, candidates.total(kept)).min(top);
        }
        let mut picked = Picked { id: NO_ID, probability: 1.0 };
        let mut highest = f32::MIN;
        for (id, logit) in candidates.kept(kept) {
            let drawn = (logit - top) / self.temperature - ln(wait(self.seed, position, id));
            if drawn > highest || picked.id == NO_ID {
                (picked.id, highest) = (id, drawn);
            }
        }
        if self.mirostat_min_p > 0.0 && picked.id != NO_ID {
            let weight = candidates.weight(logits[picked.id as usize]);
            picked.probability = (weight / candidates.total(kept)) as f32;
        }
        picked
    }
}

/// The `count` highest logits of at least `cut`, with their ids, highest first; fewer if there are not so
/// many.
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
