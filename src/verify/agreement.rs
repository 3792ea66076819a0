//! Compares the predictions of a model that is computed in two ways.

use crate::{
    backend::{Device, wait},
    buffers::{BLOCK, Sizes},
    engine,
    error::Result,
    model::Model,
    sampling::{divergence, greedy},
    step::{Row, Step},
    workload::Phase,
};
use serde::Serialize;

/// How closely the predictions of a model agree if it is computed in two ways.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Agreement {
    /// The KL divergence Σ p ln(p / q) in nats, as a mean over the tokens. p is from the first way, q from
    /// the second.
    pub kl: f64,
    /// The share of tokens, from 0 to 1, after which the most probable token is the same in both ways.
    pub top: f64,
}

/// Runs tokens through a model on two devices: in the decode plan one at a time, as if they were generated,
/// or in the prefill plan all at once.
pub fn agreement(model: &Model, tokens: &[u32], phase: Phase, devices: [Device; 2]) -> Result<Agreement> {
    let context = tokens.len() as u32;
    let at_once = if phase == Phase::Prefill { context } else { 1 };
    let blocks = context.div_ceil(BLOCK);
    let sizes = Sizes {
        rows: [at_once, 1],
        outputs: at_once,
        sequences: 1,
        guesses: 0,
        adapters: 0,
        context,
        blocks,
    };
    let mut backends = Vec::new();
    for device in devices {
        let plans = engine::plans(model, &device.capabilities(), sizes)?;
        backends.push(device.prepare(plans, &|_| ())?);
    }
    let (mut kl, mut same) = (0.0, 0);
    let rows: Vec<_> =
        (0..).zip(tokens).map(|(position, token)| Row { token: *token, position, sequence: 0 }).collect();
    for rows in rows.chunks(at_once as usize) {
        let step = Step {
            outputs: (0..at_once).collect(),
            rows: rows.to_vec(),
            tables: vec![(0..blocks).collect()],
            ..Step::default()
        };
        let mut found = Vec::new();
        for backend in &mut backends {
            backend.submit(phase, &step)?;
            wait(backend.picked())?;
            found.push(wait(backend.read(backend.plans().logits(), at_once as usize))?);
        }
        let vocab = found[0].len() / at_once as usize;
        for (p, q) in found[0].chunks(vocab).zip(found[1].chunks(vocab)) {
            same += u32::from(greedy(p) == greedy(q));
            kl += divergence(p, q);
        }
    }
    let n = tokens.len() as f64;
    Ok(Agreement { kl: kl / n, top: f64::from(same) / n })
}
