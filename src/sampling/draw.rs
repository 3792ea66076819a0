//! Drawing one of the candidates that filters leave: the definition of shaders/sample/.

use super::{
    NO_CUT, NO_ID, Xtc,
    chance::{coin, ln, wait},
    greedy,
};
use crate::simd::exp;

/// What a step says of how a sequence's next token is drawn: [`super::Sampling`] in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Zero: the highest logit.
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    /// How much lower than the highest a logit may be, by min-p.
    pub least: f32,
    pub typical_p: f32,
    /// The probability that a candidate must have, by mirostat; 0: any.
    pub rarest: f32,
    pub xtc: Xtc,
    pub seed: u64,
}

/// A token that was drawn, and, where mirostat must know it, its probability among the candidates that were left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picked {
    /// [`NO_ID`] where no logit is a number.
    pub id: u32,
    pub probability: f32,
}

impl Picked {
    /// What was picked for each sequence, from the words where it was left.
    pub fn all(words: &[u32]) -> Vec<Self> {
        let (ids, probabilities) = words.split_at(words.len() / 2);
        let both = ids.iter().zip(probabilities);
        both.map(|(id, probability)| Self { id: *id, probability: f32::from_bits(*probability) }).collect()
    }
}

/// Which candidates filters leave.
#[derive(Clone, Copy)]
struct Kept {
    /// Logits from the one to the other.
    lowest: f32,
    highest: f32,
    /// And, by typical, so near to a logit; as a number below zero, so that more is better.
    center: f32,
    closeness: f32,
}

impl Kept {
    fn has(&self, logit: f32) -> bool {
        logit >= self.lowest && logit <= self.highest && nearness(logit, self.center) >= self.closeness
    }
}

fn nearness(logit: f32, center: f32) -> f32 {
    -(logit - center).abs()
}

/// How much lower than the highest a logit may be that is to be at least min-p times as probable.
pub(super) fn least(temperature: f32, min_p: f32) -> f32 {
    if min_p > 0.0 { temperature * min_p.ln() } else { NO_CUT }
}

/// The least share of the weight that is told from nothing.
pub(super) const RAREST: f32 = 1e-30;

/// Logits, and what they weigh.
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

    /// What all that is left weighs.
    fn total(&self, kept: Kept) -> f64 {
        self.kept(kept).map(|(_, logit)| self.weight(logit)).sum()
    }

    /// The logit at which a candidate has a share of so much weight.
    fn logit_of(&self, share: f32, total: f64) -> f32 {
        self.top + self.temperature * ln((share * total as f32).max(RAREST))
    }

    /// The highest cut above which the probabilities reach p of those left.
    fn nucleus(&self, kept: Kept, p: f32) -> f32 {
        let enough = f64::from(p) * self.total(kept);
        // Mostly a few reach it: only as many are sorted as it takes.
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

    /// The fewest of those left that reach p of their weight, nearest first to the logit whose surprise is the expected one.
    ///
    /// A surprise is −ln p = ln total − x, x being the logit over temperature; so that it is as far from the mean surprise
    /// as x is from the mean x.
    fn typical(&self, kept: Kept, p: f32) -> Kept {
        let total = self.total(kept);
        let x = |logit: f32| f64::from((logit - self.top) / self.temperature);
        // What weighs nothing may be infinitely far away.
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

    /// Without the likely ones but the least likely of them, where there are two at least.
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
        least: NO_CUT,
        typical_p: 1.0,
        rarest: 0.0,
        xtc: Xtc::NONE,
        seed: 0,
    };

    /// The token at `position`.
    ///
    /// Each filter is a cut: what is as probable as the last that is kept is kept too, as transformers' top-k has it.
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
        kept.lowest = kept.lowest.max(top + self.least);
        if self.typical_p < 1.0 {
            kept = candidates.typical(kept, self.typical_p);
        }
        if self.xtc.probability > 0.0 && coin(self.seed, position) < self.xtc.probability {
            kept = candidates.without_top(kept, self.xtc.threshold);
        }
        if self.rarest > 0.0 {
            // The most probable stays whatever it surprises by.
            kept.lowest = candidates.logit_of(self.rarest, candidates.total(kept)).min(top);
        }
        let mut picked = Picked { id: NO_ID, probability: 1.0 };
        let mut highest = f32::MIN;
        for (id, logit) in candidates.kept(kept) {
            let drawn = (logit - top) / self.temperature - ln(wait(self.seed, position, id));
            if drawn > highest || picked.id == NO_ID {
                (picked.id, highest) = (id, drawn);
            }
        }
        if self.rarest > 0.0 && picked.id != NO_ID {
            let weight = candidates.weight(logits[picked.id as usize]);
            picked.probability = (weight / candidates.total(kept)) as f32;
        }
        picked
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
