//! Probabilities from logits: the most probable token, the probability of a token, the divergence of two
//! predictions.

use super::NO_ID;

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
