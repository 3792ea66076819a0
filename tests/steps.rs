//! Settings that must not change a bit of a step's results.

use wgpt::{
    buffers::Sizes,
    engine::plans,
    step::{Row, Step},
    workload::Phase,
};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The number of threads does not change a bit.
#[test]
fn threads_change_no_sum() {
    use wgpt::backend::{Device, DeviceChoice, GpuOptions, wait};
    let (model, _) = wgpt::model::Model::built_in().expect("the built-in model");
    let prompt: Vec<u32> = (0..100).map(|i| 3 + i * 7 % 500).collect();
    let sizes = Sizes {
        rows: [128, 8],
        outputs: 128,
        sequences: 1,
        guesses: 0,
        adapters: 0,
        context: 128,
        blocks: 4,
    };
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
        backend.submit(Phase::Prefill, &step).expect("the CPU");
        bits(&wait(backend.read(backend.plans().logits(), 100)).expect("logits"))
    });
    assert_eq!(logits[0], logits[1]);
    assert_eq!(logits[0], logits[2]);
}
