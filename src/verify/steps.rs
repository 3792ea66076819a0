//! Steps that reach every branch of every kernel.

use super::{CONTEXT, VOCAB};
use crate::{
    buffers::BLOCK,
    sampling::{Dry, Mirostat, Penalties, Pick, Sampling, Xtc},
    step::{Row, Step},
    workload::Phase,
};

/// The steps, in this order:
///
/// - A prefill of two sequences. The positions of one have gaps and go beyond two splits of the context.
/// - Decodes of one token of each sequence, with many sampling settings.
/// - A decode of more rows than a workgroup of a matmul computes.
/// - A prefill of an image.
/// - A decode of one row, whose id the device sampled.
pub(super) fn steps() -> Vec<(Phase, Step)> {
    // The blocks of the first sequence are in descending order, those of the second in ascending order.
    let blocks = CONTEXT.div_ceil(BLOCK);
    let tables = vec![(blocks..2 * blocks).rev().collect(), (0..blocks).collect::<Vec<_>>()];
    // Tokens are drawn with all filters together and with each alone, also from very flat and very sharp
    // distributions.
    let plain = Sampling { temperature: 0.9, seed: 7, ..Sampling::GREEDY };
    let drawn = Sampling {
        top_k: 50,
        top_p: 0.9,
        min_p: 0.01,
        penalties: Penalties { repetition: 1.3, frequency: 0.1, presence: -0.2, last: 90 },
        dry: Dry { multiplier: 0.8, ..Dry::NONE },
        biases: vec![(3, 1.5), (VOCAB - 1, f32::NEG_INFINITY)],
        banned_first: vec![5],
        ..plain.clone()
    };
    let seen: Vec<u32> = (0..100).map(|i| i * i % VOCAB).collect();
    let flat = Sampling { temperature: 50.0, ..plain.clone() };
    let sharp = Sampling { temperature: 0.02, ..plain.clone() };
    let typical = |typical_p, of: &Sampling| Sampling { typical_p, ..of.clone() };
    let without_top =
        |threshold, of: &Sampling| Sampling { xtc: Xtc { probability: 1.0, threshold }, ..of.clone() };
    let mirostat =
        |target, of: &Sampling| Sampling { mirostat: Some(Mirostat { target, rate: 0.1 }), ..of.clone() };
    let row = |sequence: u32, position: u32| Row {
        token: (position * 37 + sequence * 11) % VOCAB,
        position,
        sequence,
    };
    let pick = |of: &Sampling, seen: &[u32]| Pick {
        draw: of.draw(of.mirostat.map_or(0.0, |mirostat| mirostat.first())),
        penalties: of.penalties,
        adjusted: of.adjusted(seen, true),
    };
    let step = |rows: Vec<Row>, outputs: &[u32], sampling: [Sampling; 2]| Step {
        rows,
        outputs: outputs.to_vec(),
        targets: outputs.iter().map(|output| output * 17 % VOCAB).collect(),
        tables: tables.clone(),
        picks: sampling.iter().map(|of| pick(of, &seen)).collect(),
        adapters: vec![vec![0.5, -1.25], vec![1.0, 0.0]],
        ..Step::default()
    };
    let two = || vec![row(1, 7), row(0, 520)];
    let prompt = (0..20).chain(250..262).chain(505..510).map(|p| row(0, p)).chain((0..7).map(|p| row(1, p)));
    let many = (8..14).map(|p| row(1, p)).chain([row(0, 521)]);
    let mut steps =
        vec![(Phase::Prefill, step(prompt.collect(), &[3, 36, 43], [drawn.clone(), Sampling::GREEDY]))];
    for pair in [
        [Sampling { top_p: 0.8, ..flat.clone() }, Sampling { top_k: 300, ..flat.clone() }],
        [Sampling { top_p: 0.999, ..sharp.clone() }, Sampling { top_k: 2, ..sharp.clone() }],
        [Sampling { top_k: 300, ..sharp.clone() }, Sampling { min_p: 0.2, ..plain.clone() }],
        [
            Sampling { top_p: 0.999, min_p: 0.5, ..plain.clone() },
            Sampling { top_k: 60, min_p: 0.3, ..drawn.clone() },
        ],
        [typical(0.3, &plain), typical(0.9, &flat)],
        [typical(0.5, &sharp), typical(0.7, &Sampling { top_k: 40, top_p: 0.9, ..plain.clone() })],
        [without_top(0.001, &flat), without_top(0.05, &plain)],
        [
            without_top(0.0, &sharp),
            without_top(0.02, &typical(0.6, &Sampling { top_p: 0.95, ..plain.clone() })),
        ],
        [mirostat(2.0, &flat), mirostat(1.0, &plain)],
        [mirostat(20.0, &flat), mirostat(5.0, &sharp)],
    ] {
        steps.push((Phase::Decode, step(two(), &[0, 1], pair)));
    }
    steps.push((Phase::Decode, step(many.collect(), &[0, 2, 3, 5, 6], [plain.clone(), drawn.clone()])));
    // More rows than a tile of a matmul has.
    let mut image: Vec<Row> = (0..101).map(|position| row(0, position)).collect();
    image[3].token = crate::step::FEATURE;
    steps.push((
        Phase::Prefill,
        Step { bidirectional: true, ..step(image, &[100], [plain.clone(), drawn.clone()]) },
    ));
    let sampled = vec![Row { token: crate::step::SAMPLED, ..row(1, 14) }];
    steps.push((Phase::Decode, step(sampled, &[0], [plain, drawn])));
    steps
}
