//! Many sequences in one step: each comes out, to the bit, as it does alone.

use crate::support::{Fixture, On};
use wgpt::{
    backend::Backend,
    engine::plans,
    plan::{Shape, Sizes},
    sampling::Sampling,
    scheduler::Scheduler,
    step::{Row, Step},
};

const SIZES: Sizes = Sizes { rows: [128, 8], outputs: 128, sequences: 3, context: 43, blocks: 6 };

fn backend(fixture: &Fixture, on: On) -> Option<Box<dyn Backend>> {
    let device = on.open()?;
    let plans = plans(&fixture.model, &device.capabilities(), SIZES).expect("plans");
    Some(device.prepare(plans, &|_| ()).expect("a device made ready"))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The logits of every token of some sequences, all worked at together: `prompts` prefilled, then the `rest`
/// decoded a token of each at a time.
fn run(backend: &mut dyn Backend, sequences: &[(&[u32], &[u32])]) -> Vec<Vec<u32>> {
    let mut scheduler = Scheduler::new(SIZES);
    let slots: Vec<_> = sequences
        .iter()
        .map(|(prompt, rest)| {
            let positions = (prompt.len() + rest.len()) as u32;
            scheduler.add(prompt.to_vec(), 0, positions, Sampling::GREEDY).expect("room")
        })
        .collect();
    let mut logits = vec![Vec::new(); sequences.len()];
    for i in 0.. {
        while let Some(work) = scheduler.next_work() {
            backend.run(work.shape, &work.step).expect("the device");
            let rows = backend.plans().logits;
            let values = backend.read(rows, work.outputs.len()).expect("logits");
            for ((slot, _), values) in work.outputs.iter().zip(values.chunks(rows.width as usize)) {
                logits[*slot as usize].extend(bits(values));
            }
        }
        let mut pushed = false;
        for (slot, (_, rest)) in slots.iter().zip(sequences) {
            if let Some(token) = rest.get(i) {
                scheduler.push(*slot, *token);
                pushed = true;
            }
        }
        if !pushed {
            break;
        }
    }
    logits
}

#[test]
fn three_sequences_in_one_step_give_what_each_gives_alone() {
    for name in ["gpt1", "gpt2-f16", "gpt-neo", "llama-grouped", "mistral"] {
        let fixture = Fixture::open(name);
        let tokens = &fixture.tokens;
        let reversed: Vec<u32> = tokens.iter().rev().copied().collect();
        let long: Vec<u32> = tokens.iter().chain(&reversed).copied().collect();
        let sequences: [(&[u32], &[u32]); 3] =
            [(&tokens[..5], &tokens[5..9]), (&long[..33], &long[33..34]), (&reversed[..1], &reversed[1..7])];
        for on in On::ALL {
            let Some(mut together) = backend(&fixture, on) else { continue };
            let mut alone = backend(&fixture, on).expect("it opened before");
            let all = run(&mut *together, &sequences);
            for (i, (sequence, got)) in sequences.iter().zip(&all).enumerate() {
                let expected = run(&mut *alone, &[*sequence]);
                assert_eq!(got, &expected[0], "{name} on {on:?}, sequence {i}");
            }
        }
    }
}

/// The number of threads does not change a bit.
#[test]
fn threads_change_no_sum() {
    use wgpt::backend::{Device, DeviceChoice, GpuOptions};
    let (model, _) = wgpt::model::Model::built_in().expect("the built-in model");
    let prompt: Vec<u32> = (0..100).map(|i| 3 + i * 7 % 500).collect();
    let sizes = Sizes { rows: [128, 8], outputs: 128, sequences: 1, context: 128, blocks: 4 };
    let logits = [1, 2, 5].map(|threads| {
        let device =
            Device::open(&DeviceChoice::Cpu, false, Some(threads), GpuOptions::default()).expect("the CPU");
        let plans = plans(&model, &device.capabilities(), sizes).expect("plans");
        let mut backend = device.prepare(plans, &|_| ()).expect("memory");
        let rows =
            prompt.iter().zip(0..).map(|(token, position)| Row { token: *token, position, sequence: 0 });
        let step = Step {
            rows: rows.collect(),
            outputs: (0..100).collect(),
            tables: vec![vec![2, 0, 3, 1]],
            ..Step::default()
        };
        backend.run(Shape::Prefill, &step).expect("the CPU");
        bits(&backend.read(backend.plans().logits, 100).expect("logits"))
    });
    assert_eq!(logits[0], logits[1]);
    assert_eq!(logits[0], logits[2]);
}
