//! How near two ways of computing a model come to each other.

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

/// How near two ways of computing a model come to each other.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Agreement {
    /// The mean over tokens of Σ p ln(p / q), p by the first way, q by the second.
    pub kl: f64,
    /// The share of tokens after which both find the same one most probable.
    pub top: f64,
}

/// Feeds tokens to a model on two devices, one after the other as if each had been generated.
pub fn agreement(model: &Model, tokens: &[u32], devices: [Device; 2]) -> Result<Agreement> {
    let context = tokens.len() as u32;
    let blocks = context.div_ceil(BLOCK);
    let sizes = Sizes { rows: [1, 1], outputs: 1, sequences: 1, context, blocks };
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
