//! Probabilities from logits: the most probable token, the probability of a token, the divergence of two
//! predictions.

use super::NO_ID;

/// The natural logarithms of the probability of a generated token, and of the most probable ones in its
/// place, before the filters of sampling and before the temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    pub chosen: f32,
    /// The most probable tokens and theirs, the most probable first.
    pub top: Vec<(u32, f32)>,
}

impl Logprobs {
    /// From logits, `[vocab]`: those of the token `id` and of the `count` most probable ones.
    pub fn new(logits: &[f32], id: u32, count: usize) -> Self {
        let total = log_total(logits);
        let of = |id: u32| (f64::from(logits[id as usize]) - total) as f32;
        Self { chosen: of(id), top: highest(logits, count).into_iter().map(|id| (id, of(id))).collect() }
    }
}

/// The ids of the `count` highest logits, the highest first; among equal ones, the lowest id first.
pub fn highest(logits: &[f32], count: usize) -> Vec<u32> {
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if count < ids.len() {
        ids.select_nth_unstable_by(count, by_logit);
        ids.truncate(count);
    }
    ids.sort_unstable_by(by_logit);
    ids
}

/// The id of the highest logit; among equal logits, the lowest id. [`NO_ID`] if no logit is greater than
/// minus infinity.
pub fn greedy(logits: &[f32]) -> u32 {
    let (mut best, mut highest) = (NO_ID, f32::NEG_INFINITY);
    for (logit, id) in logits.iter().zip(0..) {
        if *logit > highest {
            (best, highest) = (id, *logit);
        }
    }
    best
}

/// The Kullback-Leibler divergence of two predictions, in nats: Σ p ln(p / q), where p and q are the
/// softmaxes of the two arguments, logits of one vocabulary (Kullback and Leibler 1951).
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p_total, q_total) = (log_total(p), log_total(q));
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p) - p_total, f64::from(*q) - q_total);
        p.exp() * (p - q)
    };
    p.iter().zip(q).map(term).sum()
}

/// `ln softmax(logits)[id]`, in nats.
pub fn logprob(logits: &[f32], id: u32) -> f64 {
    f64::from(logits[id as usize]) - log_total(logits)
}

/// ln Σ exp(logits)
pub(crate) fn log_total(logits: &[f32]) -> f64 {
    let top = logits.iter().copied().fold(f32::MIN, f32::max);
    let total: f64 = logits.iter().map(|l| f64::from(l - top).exp()).sum();
    f64::from(top) + total.ln()
}
