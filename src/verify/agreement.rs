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

/// Runs tokens through a model on two devices, one at a time in the decode plan, as if they were generated.
pub fn agreement(model: &Model, tokens: &[u32], devices: [Device; 2]) -> Result<Agreement> {
    let context = tokens.len() as u32;
    let blocks = context.div_ceil(BLOCK);
    let sizes = Sizes { rows: [1, 1], outputs: 1, sequences: 1, guesses: 0, context, blocks };
    let mut backends = Vec::new();
    for device in devices {
        let plans = engine::plans(model, &device.capabilities(), sizes)?;
        backends.push(device.prepare(plans, &|_| ())?);
    }
    let (mut kl, mut same) = (0.0, 0);
    for (position, token) in (0..).zip(tokens) {
        let step = Step {
            rows: vec![Row { token: *token, position, sequence: 0 }],
            outputs: vec![0],
            tables: vec![(0..blocks).collect()],
            ..Step::default()
        };
        let mut found = Vec::new();
        for backend in &mut backends {
            backend.submit(Phase::Decode, &step)?;
            wait(backend.picked())?;
            found.push(wait(backend.read(backend.plans().logits(), 1))?);
        }
        same += u32::from(greedy(&found[0]) == greedy(&found[1]));
        kl += divergence(&found[0], &found[1]);
    }
    let n = tokens.len() as f64;
    Ok(Agreement { kl: kl / n, top: f64::from(same) / n })
}
