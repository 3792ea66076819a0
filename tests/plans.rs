//! Compares the listings of plans with committed files, so that every change of a pass shows in the diff.
//! `WGPT_WRITE_PLANS=1` writes the files again.

use crate::{
    adapters, images,
    support::{Fixture, path},
};
use wgpt::{
    buffers::Sizes,
    capabilities::Capabilities,
    engine::{plans, vision_plans},
    workload::Phase,
};

const SIZES: Sizes =
    Sizes { rows: [128, 8], outputs: 8, sequences: 1, guesses: 0, adapters: 0, context: 43, blocks: 2 };

#[test]
fn plans_are_as_committed() {
    for name in ["gpt1", "gpt2", "gpt-neo", "llama-biases", "llama-mixed-dtypes", "qwen3", "smollm3"] {
        let fixture = Fixture::open(name);
        let plans = plans(&fixture.model, &Capabilities::webgpu(), SIZES).expect("plans");
        let listings = Phase::ALL.map(|phase| format!("{phase:?}\n{}", plans.listing(phase)));
        is_as_committed(name, &listings.concat());
    }
    let model = adapters::adapted("llama-grouped");
    let sizes = Sizes { adapters: 2, ..SIZES };
    let adapted = plans(&model, &Capabilities::webgpu(), sizes).expect("plans");
    let listings = Phase::ALL.map(|phase| format!("{phase:?}\n{}", adapted.listing(phase)));
    is_as_committed("llama-adapters", &listings.concat());
    let model = images::models().next().expect("a model that sees");
    let tower = vision_plans(&model, &Capabilities::webgpu()).expect("a plan").expect("it sees");
    let plans = plans(&model, &Capabilities::webgpu(), SIZES).expect("plans");
    let prefill = Phase::Prefill;
    let (image, prefill) = (tower.listing(prefill), plans.listing(prefill));
    is_as_committed("llava", &format!("An image\n{image}Prefill\n{prefill}"));
}

fn is_as_committed(name: &str, listing: &str) {
    let file = path("plans").join(format!("{name}.txt"));
    if std::env::var_os("WGPT_WRITE_PLANS").is_some() {
        std::fs::write(&file, listing).expect("tests/plans can be written");
    }
    let committed = std::fs::read_to_string(&file).expect("a committed listing");
    assert_eq!(listing, committed, "{}: WGPT_WRITE_PLANS=1 tests/run plans", file.display());
}
